//! One module for each place in the kernel that is listened at.

mod minisock;
mod set_state;
mod time_wait;
mod twsk;
