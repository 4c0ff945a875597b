//! The class of a thread, from its name. `docs/threads.md` describes the names by runtime.

use tailor_sizing::telemetry::invocation::ThreadClass::{self, Collector, Compiler, Main, Other, Pool};

/// CPU time from which a thread is classified. Reading its name costs 10 µs, and many threads of a runtime never run after
/// the start.
pub(super) const MIN_CLASSIFIED_NS: u64 = 100_000;

/// The number of threads that Node.js starts for V8 and its inspector before any other thread. Before Node.js 22.14 all
/// have the name of the process.
const NODE_PLATFORM_THREADS: usize = 6;

/// Threads of runtimes, by how their names begin. The kernel cuts names after 15 bytes. All other threads belong to the
/// application.
#[rustfmt::skip]
const NAMES: &[(&str, ThreadClass)] = &[
    // V8 in Node.js and Deno. Its workers collect and compile.
    ("V8Worker", Collector), ("V8 DefaultWorke", Collector), ("DelayedTaskSche", Other), ("SignalInspector", Other),
    // JavaScriptCore in Bun.
    ("HeapHelper", Collector), ("JITWorker", Compiler),
    // The JVM. Its serial collector runs in the VM thread.
    ("VM Thread", Collector), ("GC Thread#", Collector), ("G1 ", Collector), ("ZDriver", Collector),
    ("ZDirector", Collector), ("ZWorker", Collector), ("ZStat", Collector), ("ZUn", Collector),
    ("Shenandoah", Collector), ("ParGC", Collector), ("Concurrent Mark", Collector),
    ("C1 CompilerThre", Compiler), ("C2 CompilerThre", Compiler), ("JVMCI", Compiler), ("Sweeper thread", Compiler),
    ("VM Periodic Tas", Other), ("Service Thread", Other), ("Signal Dispatch", Other), ("Monitor Deflati", Other),
    ("Notification Th", Other), ("Common-Cleaner", Other), ("Finalizer", Other), ("Reference Handl", Other),
    ("Attach Listener", Other), ("JFR ", Other),
    // .NET.
    (".NET BGC", Collector), (".NET Server GC", Collector), (".NET Tiered Com", Compiler),
    (".NET Finalizer", Other), (".NET SynchManag", Other), (".NET EventPipe", Other), (".NET SigHandler", Other),
    (".NET TP Gate", Other), (".NET Timer", Other), (".NET DebugPipe", Other),
    // Ruby's compilers in their own threads.
    ("ruby-mjitworke", Compiler), ("ruby-rjitworke", Compiler),
];

/// The class of the thread with this name. `index` is its place in the process by thread id; the first thread has 0.
pub(super) fn of(name: &str, index: usize) -> ThreadClass {
    if let Some(&(_, class)) = NAMES.iter().find(|(beginning, _)| name.starts_with(beginning)) {
        return class;
    }
    match name {
        "node" if index <= NODE_PLATFORM_THREADS => Collector,
        // The launcher starts the main thread first, and then only waits for its end.
        "java" if index == 1 => Main,
        _ => Pool,
    }
}
