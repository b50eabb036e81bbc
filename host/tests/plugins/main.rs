//! Every guest program against the real components.

mod batch;
mod chains;
mod mask_email;
