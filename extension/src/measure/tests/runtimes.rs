//! The table of thread names against the runtimes that are installed.

use std::path::Path;

use tailor_sizing::telemetry::invocation::{ThreadClass, Work};
use tailor_test_kit::skip;

use super::*;

/// A program that answers each byte after work of its main thread, of a pool of three threads, and allocations.
struct Runtime {
    name: &'static str,
    /// The command that prints its version.
    version: &'static [&'static str],
    file: &'static str,
    source: &'static str,
    /// Compiles it in its folder, if that is needed.
    build: &'static [&'static str],
    run: &'static [&'static str],
    /// The classes that must have run. Others must not have used more than a tenth of the CPU time.
    classes: &'static [ThreadClass],
}

const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "Node.js",
        version: &["node", "--version"],
        file: "main.js",
        source: r#"const c=require("crypto"),fs=require("fs");let kept=[];
const hash=()=>new Promise(done=>c.pbkdf2("a","b",60000,32,"sha256",done));
process.stdin.on("data",async()=>{for(let i=0;i<400000;i++){kept.push({i,text:"x"+i});if(kept.length>100000)kept=[]}
await Promise.all([hash(),hash(),hash()]);fs.writeSync(1,"x")});fs.writeSync(1,"x");"#,
        build: &[],
        run: &["node", "main.js"],
        classes: &[ThreadClass::Main, ThreadClass::Pool, ThreadClass::Collector],
    },
    Runtime {
        name: "Python",
        version: &["python3", "--version"],
        file: "main.py",
        source: r#"import os,hashlib,concurrent.futures as f
pool=f.ThreadPoolExecutor(3)
hash=lambda _: hashlib.pbkdf2_hmac("sha256",b"a",b"b",60000)
os.write(1,b"x")
while os.read(0,1):
    hash(0); list(pool.map(hash,range(3))); os.write(1,b"x")"#,
        build: &[],
        run: &["python3", "main.py"],
        classes: &[ThreadClass::Main, ThreadClass::Pool],
    },
    Runtime {
        name: "Java",
        version: &["javac", "-version"],
        file: "Main.java",
        source: r#"import java.util.*;import java.util.concurrent.*;
public class Main{static long sink;static long spin(){long s=0;for(int i=0;i<30000000;i++)s+=i*s+1;return s;}
public static void main(String[] a)throws Exception{var pool=Executors.newFixedThreadPool(3);System.out.write('x');System.out.flush();
while(System.in.read()>=0){List<Future<Long>> all=new ArrayList<>();for(int i=0;i<3;i++)all.add(pool.submit(Main::spin));
List<byte[]> kept=new ArrayList<>();for(int i=0;i<40000;i++){kept.add(new byte[5000]);if(kept.size()>4000)kept.clear();}
sink+=spin();for(var one:all)sink+=one.get();System.out.write('x');System.out.flush();}System.exit(0);}}"#,
        build: &["javac", "Main.java"],
        run: &["java", "-Xmx128m", "Main"],
        classes: &[ThreadClass::Main, ThreadClass::Pool, ThreadClass::Collector, ThreadClass::Compiler],
    },
    Runtime {
        name: "Ruby",
        version: &["ruby", "--version"],
        file: "main.rb",
        source: r#"require "openssl"
hash=->{OpenSSL::PKCS5.pbkdf2_hmac("a","b",60000,32,"sha256")}
todo=Queue.new;done=Queue.new;3.times{Thread.new{loop{todo.pop;hash.call;done<<1}}}
$stdout.sync=true;$stdout.write "x"
while $stdin.readpartial(1)
  hash.call;3.times{todo<<1};3.times{done.pop};$stdout.write "x"
end"#,
        build: &[],
        run: &["ruby", "main.rb"],
        classes: &[ThreadClass::Main, ThreadClass::Pool],
    },
    Runtime {
        name: "Go",
        version: &["go", "version"],
        file: "main.go",
        source: r#"package main
import ("os";"sync")
var sink [4]int
func spin(at int){s:=0;for i:=0;i<20000000;i++{s+=i*s+1};sink[at]=s}
func main(){b:=make([]byte,1);os.Stdout.Write([]byte("x"));for{n,_:=os.Stdin.Read(b);if n==0{return}
var w sync.WaitGroup;for i:=1;i<4;i++{w.Add(1);go func(){defer w.Done();spin(i)}()};spin(0);w.Wait();os.Stdout.Write([]byte("x"))}}"#,
        build: &["go", "build", "-o", "main", "main.go"],
        run: &["./main"],
        classes: &[ThreadClass::Pool],
    },
];

fn is_installed(runtime: &Runtime) -> bool {
    let [program, argument] = runtime.version else { return false };
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// The work of several invocations.
fn work_of(runtime: &Runtime, folder: &Path) -> Work {
    std::fs::write(folder.join(runtime.file), runtime.source).unwrap();
    if let [program, arguments @ ..] = runtime.build {
        let cache = std::env::var_os("GOCACHE").unwrap_or_else(|| folder.join("cache").into());
        let built =
            Command::new(program).args(arguments).env("GOCACHE", cache).current_dir(folder).output().unwrap();
        assert!(built.status.success(), "{built:?}");
    }
    let mut command = Command::new(runtime.run[0]);
    command.args(&runtime.run[1..]).current_dir(folder).env("LAMBDA_TASK_ROOT", folder);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut function = Function(child);
    function.wait_for_byte();
    let mut processes = only(&[&function], Peak::Reset);
    processes.read();
    let mut work = Work::default();
    for _ in 0..3 {
        let start = processes.read();
        function.invoke();
        work.add(&between(&start, &processes.read()).work);
    }
    work
}

/// `docs/threads.md` has the table.
#[test]
fn the_threads_of_real_runtimes_have_the_documented_classes() {
    for runtime in RUNTIMES {
        if !is_installed(runtime) {
            skip(&format!("needs {}", runtime.name));
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let work = work_of(runtime, folder.path());
        let seen_us: u64 = ThreadClass::ALL.iter().map(|&class| work.class(class).busy_us).sum();
        let (busy_us, difference_us) =
            (work.busy_us(), work.busy_us().abs_diff(seen_us + work.unseen_busy_us));
        assert!(difference_us * 50 <= busy_us, "{}: classes do not add up: {work:?}", runtime.name);
        for class in ThreadClass::ALL {
            // Go runs goroutines on any of its threads, also on the first one.
            if runtime.name == "Go" && class == ThreadClass::Main {
                continue;
            }
            let of_class = work.class(class);
            let is_expected = runtime.classes.contains(&class);
            assert!(
                if is_expected { of_class.busy_us > 1_000 } else { of_class.busy_us * 10 <= busy_us },
                "{}: {class:?} in {work:?}",
                runtime.name
            );
        }
        let pool = work.pool;
        // One thread of a pool may do the work of three.
        assert!(pool.threads >= 3, "{}: {work:?}", runtime.name);
        assert!(pool.busy_us * 5 >= busy_us, "{}: the pool does a large part: {work:?}", runtime.name);
    }
}
