;; Answers the WASI (preview 1) functions that the runtimes of Go and C link, so that a component of
;; theirs imports nothing but Tailwater's interfaces:
;;
;;   wasm-tools component new plugin.wasm --adapt wasi_snapshot_preview1=no-wasi.wat
;;
;; What would tell one run from another is the same in every run: the clock begins at one and steps
;; by a microsecond, random bytes come from a fixed seed. There are no arguments, no environment and
;; no files; what is written to standard output or error is thrown away.
(module
  (import "env" "memory" (memory 0))

  (global $clock (mut i64) (i64.const 1))
  (global $seed (mut i64) (i64.const 0x2545F4914F6CDD1D))

  (func (export "proc_exit") (param $code i32)
    unreachable)

  (func (export "sched_yield") (result i32)
    (i32.const 0))

  ;; None: the count and the size of the text are zero.
  (func $nothing (export "args_sizes_get") (export "environ_sizes_get")
    (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))

  (func (export "args_get") (export "environ_get") (param i32 i32) (result i32)
    (i32.const 0))

  (func (export "clock_res_get") (param $clock_id i32) (param $resolution i32) (result i32)
    (i64.store (local.get $resolution) (i64.const 1000))
    (i32.const 0))

  (func (export "clock_time_get") (param $clock_id i32) (param $precision i64) (param $time i32)
    (result i32)
    (global.set $clock (i64.add (global.get $clock) (i64.const 1000)))
    (i64.store (local.get $time) (global.get $clock))
    (i32.const 0))

  ;; Go says so around its allocations, where the component model forbids calls to a host; ours is none.
  (func (export "adapter_monotonic_clock_set_paused") (param $paused i32))

  ;; xorshift64, a byte a step.
  (func (export "random_get") (param $at i32) (param $count i32) (result i32)
    (local $x i64)
    (local.set $x (global.get $seed))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
        (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
        (i64.store8 (local.get $at) (local.get $x))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (global.set $seed (local.get $x))
    (i32.const 0))

  ;; Every byte counts as written. A vector is an address and a length.
  (func (export "fd_write") (param $fd i32) (param $vectors i32) (param $count i32)
    (param $written i32) (result i32)
    (local $sum i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $vectors))))
        (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; A wait for the clock is over at once, a millisecond later: one event, of 32 bytes.
  (func (export "poll_oneoff") (param $subscriptions i32) (param $events i32) (param $count i32)
    (param $ready i32) (result i32)
    (global.set $clock (i64.add (global.get $clock) (i64.const 1000000)))
    (i64.store (local.get $events) (i64.load (local.get $subscriptions)))
    (i64.store offset=8 (local.get $events) (i64.const 0))
    (i64.store offset=16 (local.get $events) (i64.const 0))
    (i64.store offset=24 (local.get $events) (i64.const 0))
    (i32.store (local.get $ready) (i32.const 1))
    (i32.const 0))

  ;; No descriptor is open: all of these answer `badf`. One function for each type.
  (func (export "fd_close") (export "fd_datasync") (export "fd_sync") (export "proc_raise")
    (param i32) (result i32)
    (i32.const 8))
  (func (export "fd_fdstat_get") (export "fd_fdstat_set_flags") (export "fd_filestat_get")
    (export "fd_prestat_get") (export "fd_renumber") (export "fd_tell") (export "sock_shutdown")
    (param i32 i32) (result i32)
    (i32.const 8))
  (func (export "fd_prestat_dir_name") (export "path_create_directory")
    (export "path_remove_directory") (export "path_unlink_file") (export "sock_accept")
    (param i32 i32 i32) (result i32)
    (i32.const 8))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func (export "path_filestat_get") (export "path_symlink") (export "sock_send")
    (param i32 i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func (export "path_readlink") (export "path_rename") (export "sock_recv")
    (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)
    (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32)
    (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32)
    (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32)
    (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_pread") (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32)
    (i32.const 8)))
