//! Every guest program against the real components.

mod batch;
mod chains;
mod compiled_code;
mod configured;
mod drop_duplicates;
mod filter_rows;
mod frozen;
mod golden;
mod golden_envelopes;
mod hostile;
mod identity;
mod mask_email;
mod reload;
mod reshape;
mod state;
