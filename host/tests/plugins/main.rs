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
mod log_lines;
mod mask_email;
mod metrics;
mod own_world;
mod packed_columns;
mod parallel;
mod places;
mod probation;
mod quarantine;
mod reload;
mod reshape;
mod settings;
mod state;
mod swaps;
