//! Sorting, for short lists off the request path. The standard library's sorts are faster for long ones, but each use
//! takes about 8 KiB of the binary, these less than 1.

use std::collections::BinaryHeap;

/// Sorts a list. Takes O(n log n).
pub(crate) fn sorted<T: Ord>(list: Vec<T>) -> Vec<T> {
    BinaryHeap::from(list).into_sorted_vec()
}

/// Sorts a list by a key, which is computed once for each item. Equal ones keep their order. Takes O(n log n).
pub(crate) fn sorted_by_key<T, K: Ord>(list: Vec<T>, key: impl FnMut(&T) -> K) -> Vec<T> {
    let keys = sorted(list.iter().map(key).zip(0..).collect::<Vec<(K, usize)>>());
    let mut items: Vec<Option<T>> = list.into_iter().map(Some).collect();
    keys.into_iter().filter_map(|(_, at)| items[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_as_by_the_standard_library() {
        for length in 0..100 {
            let list: Vec<(u8, usize)> = (0..length).map(|at| (fastrand::u8(0..10), at)).collect();
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| *key);
            assert_eq!(sorted_by_key(list.clone(), |(key, _)| *key), expected);
            assert_eq!(sorted(list), expected);
        }
    }
}
