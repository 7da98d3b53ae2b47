/// A guest's load at `offset` of `source`, at any offset and of any width. Bytes beyond the end of `source` are 0.
pub fn load(source: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|offset| source.get(offset..)).unwrap_or(&[]);
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
