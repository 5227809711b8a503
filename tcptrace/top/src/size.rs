//! What fits on a screen, given its columns and lines.

/// From so much on, the overview has more panes.
const LARGE: (u16, u16) = (140, 40);

/// Columns of the left half of a large overview.
pub(super) const LEFT: u16 = 80;

/// Whether the overview has room for more panes.
pub(super) fn is_large(size: (u16, u16)) -> bool {
    size.0 >= LARGE.0 && size.1 >= LARGE.1
}

/// Columns of the main list of the overview, and of what is beside it.
pub(super) fn columns(size: (u16, u16)) -> (usize, usize) {
    if is_large(size) {
        (usize::from(LEFT), usize::from(size.0 - LEFT - 1))
    } else {
        (usize::from(size.0), 0)
    }
}
