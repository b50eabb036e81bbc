//! What lies beside plugins in JavaScript, by its own tests.

use tailwater_test_support::{toolchains, workspace_root};

#[test]
fn javascript_columns_are_read_and_written_whatever_is_in_them() {
    let mut node = toolchains::node().expect("Node.js");
    node.args(["--no-warnings", "--test", "--test-reporter=tap"]);
    node.arg(workspace_root().join("guest-sdk/js/columns.test.js"));
    let output = node.output().expect("Node.js runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("\n# pass 7"), "{printed}");
}
