use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use super::files::READS;
use super::scan::Namespace;
use super::*;

mod runtimes;

/// A child process of the function, which ends with the test.
struct Function(Child);

impl Function {
    fn start(program: &str, arguments: &[&str]) -> Self {
        Self::with_variables(&["LAMBDA_TASK_ROOT"], program, arguments)
    }

    /// Starts it with only these variables.
    fn with_variables(variables: &[&str], program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(variables.iter().map(|variable| (variable, "/")));
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Starts a Python program that calls `answer(byte)` for each byte, and waits until it is ready.
    fn serve(program: &str) -> Self {
        let serve =
            "\nos.write(1,b'x')\nwhile True:\n b=os.read(0,1)\n if not b: break\n answer(b); os.write(1,b)";
        let mut function =
            Self::start("python3", &["-c", &format!("import os,time,threading\n{program}{serve}")]);
        function.wait_for_byte();
        function
    }

    fn wait_for_byte(&mut self) {
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    /// One invocation.
    fn invoke(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"i").unwrap();
        self.wait_for_byte();
        // When its clock does not change, it waits for input again.
        let clock = |pid| Probe::open(pid, None, &DescriptorBudget::of(0)).unwrap().cpu_ns();
        while clock(self.pid()) != {
            std::thread::sleep(std::time::Duration::from_millis(5));
            clock(self.pid())
        } {}
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Reads only these processes, so that other tests do not interfere.
fn only(functions: &[&Function], peak: Peak) -> Processes {
    let mut processes = Processes::of_children(peak);
    processes.scanner.restrict_to(functions.iter().map(|function| function.pid()).collect());
    processes
}

/// The result of `action`, and the number of files that it reads.
fn reads<T>(action: impl FnOnce() -> T) -> (T, usize) {
    let before = READS.get();
    let result = action();
    (result, READS.get() - before)
}

/// The kernel cuts names at 15 bytes, also inside a multi-byte character.
#[test]
fn a_process_with_any_name_is_measured() {
    let script = r"printf '\320\236\320\261\321\200\320\260\320\261\320\276\321\202\321' > /proc/$$/comm; printf x; read stop";
    let mut function = Function::start("sh", &["-c", script]);
    function.wait_for_byte();
    let comm = std::fs::read(format!("/proc/{}/comm", function.pid())).unwrap();
    assert!(std::str::from_utf8(&comm).is_err(), "{comm:?}");
    let snapshot = only(&[&function], Peak::Sampled).read();
    assert!(snapshot.processes[0].resident_kib > 0 && snapshot.processes[0].threads.len() == 1);
}

/// A function may start any number of processes.
#[test]
fn descriptors_and_reads_are_bounded_however_many_processes_there_are() {
    let functions: Vec<Function> = (0..2 * MAX_OPEN_FILES).map(|_| Function::start("cat", &[])).collect();
    let mut processes = only(&functions.iter().collect::<Vec<_>>(), Peak::Reset);
    let mut readings = 0;
    loop {
        let snapshot = processes.read();
        let are_all = snapshot.processes.len() == functions.len();
        assert_eq!(snapshot.is_incomplete, !are_all, "missing processes are reported");
        if are_all {
            break;
        }
        processes.reset_peaks();
        readings += 1;
        assert!(readings <= functions.len() / MAX_NEW_PROCESSES + 8, "some processes are never found");
    }
    assert!(processes.descriptor_budget.left() <= MAX_OPEN_FILES);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| entry.ok()?.path().read_link().ok());
    let is_ours = |path: &std::path::PathBuf| {
        functions.iter().any(|function| path.starts_with(format!("/proc/{}", function.pid())))
    };
    assert!(open.filter(is_ours).count() <= MAX_OPEN_FILES);
    // None ran, as their clocks show. Only the counters of the environment are read.
    let (snapshot, reads) = reads(|| processes.read());
    assert!(reads < 8, "{reads} files were read of processes that did not run");
    assert!(snapshot.processes.iter().all(|process| process.resident_kib > 0 && !process.clock_only));
    drop(functions);
    assert!(processes.read().processes.is_empty());
    assert!(
        processes.descriptor_budget.left() > MAX_OPEN_FILES / 2,
        "the files of ended processes are closed: {}",
        processes.descriptor_budget.left()
    );
}

#[test]
fn of_many_busy_processes_some_are_read_by_clock_only() {
    let program = "parent=os.getpid()
for _ in range(59):
 if os.fork()==0:
  while os.getppid()==parent:
   for _ in range(2000): pass
   time.sleep(0.02)
  os._exit(0)
def answer(b): pass";
    let function = Function::serve(program);
    let mut processes = only(&[&function], Peak::Reset);
    while processes.read().processes.len() < 60 {}
    processes.reset_peaks();
    let start = processes.read();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let clocks = |snapshot: &Snapshot| snapshot.processes.iter().map(|process| process.cpu_ns).sum::<u64>();
    let (end, reads) = reads(|| processes.read());
    assert!(reads < 200, "{reads} files were read");
    assert!(end.processes.iter().any(|process| process.clock_only));
    let measured = between(&start, &end);
    assert_eq!(measured.work.busy_us(), (clocks(&end) - clocks(&start)) / 1_000, "clocks are exact for all");
    assert!(measured.starved_inferred && measured.peak_sampled, "{measured:?}");
}

/// Most threads of large thread pools sleep.
#[test]
fn of_many_threads_the_busy_ones_are_read() {
    let program = "threading.stack_size(65536)
for _ in range(400): threading.Thread(target=lambda: time.sleep(1000),daemon=True).start()
def spin():
 t=time.thread_time()
 while time.thread_time()-t<0.03: pass
go=threading.Semaphore(0); done=threading.Semaphore(0)
def work():
 while True: go.acquire(); spin(); done.release()
threading.Thread(target=work,daemon=True).start()
def answer(b):
 go.release(); done.acquire()";
    let mut function = Function::serve(program);
    let mut processes = only(&[&function], Peak::Reset);
    processes.read();
    let mut measured = Measured::default();
    for invocation in 0..80 {
        let start = processes.read();
        function.invoke();
        let (end, reads) = reads(|| processes.read());
        assert!(reads < 160, "{reads} files were read");
        measured = between(&start, &end);
        assert!(measured.work.busy_us() >= 30_000 && end.processes[0].live_threads == 402);
        if measured.starved_inferred {
            assert!(invocation < 70, "the busy thread is never found");
            continue;
        }
        assert!(measured.work.top_busy_us * 100 >= measured.work.busy_us() * 90, "{measured:?}");
    }
    assert!(!measured.starved_inferred);
    let start = processes.read();
    function.invoke();
    let (end, reads) = reads(|| processes.read());
    assert!(reads < 16, "the busy thread is known, and {reads} files were read");
    assert!(!between(&start, &end).starved_inferred);
    // A sample before the reading does not change that.
    let start = processes.read();
    function.invoke();
    processes.quick_sample();
    assert!(!between(&start, &processes.read()).starved_inferred);
}

#[test]
fn all_of_a_hundred_threads_are_read() {
    let program = "for _ in range(99): threading.Thread(target=lambda: time.sleep(1000),daemon=True).start()
def answer(b):
 t=time.process_time()
 while time.process_time()-t<0.005: pass";
    let mut function = Function::serve(program);
    let mut processes = only(&[&function], Peak::Reset);
    processes.read();
    function.invoke();
    let snapshot = processes.read();
    assert_eq!(snapshot.processes[0].threads.len(), 100);
    assert!(snapshot.processes[0].threads.iter().all(|thread| !thread.has_no_baseline && thread.run_ns > 0));
}

/// The counters of a killed runtime are lost.
#[test]
fn the_samples_of_a_killed_process_are_used() {
    let program = "held=[]
def answer(b):
 held.append(b'x'*20_000_000)
 t=time.process_time()
 while time.process_time()-t<0.03: pass";
    for sample in [Processes::sample, Processes::quick_sample] {
        let mut function = Function::serve(program);
        let mut processes = only(&[&function], Peak::Reset);
        let start = processes.read();
        processes.reset_peaks();
        assert!(processes.last_sample().processes.is_empty(), "there was no sample");
        function.invoke();
        assert!(sample(&mut processes));
        drop(function);
        assert!(!sample(&mut processes), "no process is alive");
        let measured = between(&start, &processes.last_sample());
        assert!(measured.peak_kib > start.processes[0].resident_kib + 19_000, "{measured:?}");
        assert!(measured.peak_sampled && !measured.starved_inferred, "{measured:?}");
        assert!(measured.work.busy_us() >= 30_000 && measured.work.top_busy_us >= 30_000, "{measured:?}");
        assert!(processes.read().processes.is_empty() && processes.last_sample().processes.is_empty());
    }
}

/// An extension may be a script that runs a program in any folder, and a runtime may remove its variables.
#[test]
fn runtimes_and_extensions_are_distinguished_by_their_variables() {
    let runtime = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API", "_HANDLER"], "cat", &[]);
    let extension = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API"], "cat", &[]);
    let found = |functions: &[&Function]| {
        let mut processes = only(functions, Peak::Sampled);
        let first = processes.read();
        assert_eq!(first.processes.len(), processes.read().processes.len());
        first.processes.iter().map(|process| process.identity.0).collect::<Vec<_>>()
    };
    assert_eq!(found(&[&runtime, &extension]), [runtime.pid()]);
    let without_variables = Function::with_variables(&[], "cat", &[]);
    assert_eq!(
        found(&[&without_variables]),
        [0; 0],
        "the namespace is shared, so it may be of another environment"
    );
}

/// A script in the folder of extensions that ends with `exec` leaves a program in another folder.
#[test]
fn an_extension_that_a_script_replaced_is_not_the_functions() {
    let runtime = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API", "_HANDLER"], "cat", &[]);
    let script = ["-c", "printf x; exec /bin/cat"];
    let mut extension = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API"], "sh", &script);
    extension.wait_for_byte();
    let mut processes = only(&[&runtime, &extension], Peak::Sampled);
    processes.scanner.set_namespace(Namespace::Environment);
    let found = processes.read();
    let pids: Vec<_> = found.processes.iter().map(|process| process.identity.0).collect();
    assert_eq!(pids, [runtime.pid()]);
    // Its CPU time and memory are known, so that they are not unaccounted.
    assert_eq!(processes.scanner.extension_pids().collect::<Vec<_>>(), [extension.pid()]);
}

/// Where a namespace has the processes of one environment only.
#[test]
fn in_an_environment_of_its_own_all_but_extensions_is_the_functions() {
    let found = |functions: &[&Function]| {
        let mut processes = only(functions, Peak::Sampled);
        processes.scanner.set_namespace(Namespace::Environment);
        processes.read().processes.iter().map(|process| process.identity.0).collect::<Vec<_>>()
    };
    // Extensions start before the runtime.
    let daemon_of_extension = Function::with_variables(&[], "cat", &[]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    let runtime = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API", "_HANDLER"], "cat", &[]);
    let extension = Function::with_variables(&["AWS_LAMBDA_RUNTIME_API"], "cat", &[]);
    let daemon = Function::with_variables(&[], "cat", &[]);
    let with_title = Function::with_variables(&["php-fpm: master process"], "cat", &[]);
    let all = [&runtime, &extension, &daemon, &with_title, &daemon_of_extension];
    assert_eq!(found(&all), [runtime.pid(), daemon.pid(), with_title.pid()]);
    assert_eq!(found(&[&extension]), [extension.pid()], "one process must be the runtime");
    assert_eq!(found(&[&daemon]), [daemon.pid()]);
}
