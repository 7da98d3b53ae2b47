/// Pairs the names of an enum's values (`strum::VariantNames`) with the values (`strum::VariantArray`).
///
/// # Panics
/// At compile time, if `names` or `values` does not have `N` elements.
pub const fn named<T: Copy, const N: usize>(names: &[&'static str], values: &[T]) -> [(&'static str, T); N] {
    assert!(names.len() == N && values.len() == N);
    let mut pairs = [(names[0], values[0]); N];
    let mut n = 1;
    while n < N {
        pairs[n] = (names[n], values[n]);
        n += 1;
    }
    pairs
}
