//! Rows in shared pages: a changed table shares every page but the changed ones with the old one.

use std::sync::Arc;

/// Rows of one page.
const ROWS: usize = 64;

/// An array of rows, cheap to copy and to change in few places: one load more than a flat one.
#[derive(Debug, Clone)]
pub struct Pages<T> {
    pages: Vec<Arc<[T; ROWS]>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Clone + Default> Pages<T> {
    /// The row at `index`, if its page was ever written.
    #[inline(always)]
    pub fn row(&self, index: usize) -> Option<&T> {
        Some(&self.pages.get(index / ROWS)?[index % ROWS])
    }

    /// The row at `index` for writing; copies its page if another table shares it.
    pub fn row_mut(&mut self, index: usize) -> &mut T {
        let page = index / ROWS;
        if self.pages.len() <= page {
            let blank = Arc::new(std::array::from_fn(|_| T::default()));
            self.pages.resize(page + 1, blank);
        }
        &mut Arc::make_mut(&mut self.pages[page])[index % ROWS]
    }

    /// Every row of every page, default ones too.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// How many pages both tables share.
    pub fn shared_with(&self, other: &Self) -> usize {
        self.pages.iter().zip(&other.pages).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_one_page() {
        let mut old = Pages::default();
        for index in 0..257 {
            *old.row_mut(index) = index;
        }
        let mut new = old.clone();
        *new.row_mut(67) = 1;
        assert_eq!((old.row(67), new.row(67)), (Some(&67), Some(&1)));
        assert_eq!(old.shared_with(&new), 4);
        assert_eq!(new.row(256), Some(&256));
        assert_eq!(new.row(320), None);
        assert_eq!(new.iter().filter(|&&row| row != 0).count(), 256);
    }
}
