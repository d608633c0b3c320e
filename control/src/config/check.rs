//! `heddle check`.
