//! Step 3, `transform`: WebAssembly components see, change and drop changes.
