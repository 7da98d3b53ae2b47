/// Fills `data` from `source` at `offset`, for a guest load of any width at any offset. Bytes beyond the end are 0.
pub fn load(source: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|offset| source.get(offset..)).unwrap_or(&[]);
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
