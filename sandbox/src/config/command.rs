//! Which program runs a function.
//!
//! A `bootstrap` in the code folder or a layer is always used. Without one, the language's runtime interface client is
//! started the way AWS's base images start it; it must be installed in the function's folder or a layer.

use std::path::{Path, PathBuf};
use std::process;

use thiserror::Error;

use super::FunctionConfig;

/// The artifact of Java's runtime client.
const JAVA_CLIENT: &str = "aws-lambda-java-runtime-interface-client";

/// Its main class.
const JAVA_CLIENT_CLASS: &str = "com/amazonaws/services/lambda/runtime/api/client/AWSLambda.class";

/// Why a function cannot be started.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error(
        "function {function}: runtime {runtime} needs an executable `bootstrap` in its code folder or a layer"
    )]
    NoBootstrap { function: String, runtime: String },
    #[error("function {function}: runtime {runtime} needs `{program}` on the PATH")]
    NoInterpreter { function: String, runtime: String, program: &'static str },
    #[error(
        "function {function}: runtime {runtime} needs the runtime client {package} in its code folder or a layer, or an \
         executable `bootstrap`; to install it: {install}"
    )]
    NoClient { function: String, runtime: String, package: &'static str, install: String },
    #[error("function {function}: `command` in function.toml is empty")]
    EmptyCommand { function: String },
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Path or name of the program.
    pub program: String,
    /// Arguments without the program's own name.
    pub arguments: Vec<String>,
}

/// Language interpreters found on this machine, looked up once.
#[derive(Clone, Debug, Default)]
pub struct Interpreters {
    /// Python 3.
    pub python: Option<String>,
    /// Node.js.
    pub node: Option<String>,
    /// Java launcher.
    pub java: Option<String>,
    /// Where the standard library of Python is, which may not be where the program is.
    python_prefix: Option<String>,
    /// Whether the runtime client is installed with Python itself.
    python_has_client: bool,
}

impl Interpreters {
    /// Queries each interpreter for its own path, so that version-manager shims (shell scripts that would add
    /// processes and milliseconds to every start) are not what functions run.
    pub fn find() -> Interpreters {
        let program = "import importlib.util as i, sys; \
                       print(sys.executable, sys.base_prefix, bool(i.find_spec('awslambdaric')), sep='\\t')";
        let python = output_of("python3", &["-c", program]).unwrap_or_default();
        let mut fields = python.split('\t').map(str::to_owned);
        Interpreters {
            python: fields.next().filter(|path| !path.is_empty()),
            python_prefix: fields.next(),
            python_has_client: fields.next().is_some_and(|text| text == "True"),
            node: output_of("node", &["-p", "process.execPath"]),
            java: output_of("java", &["-XshowSettings:properties", "-version"])
                .map(|home| format!("{home}/bin/java")),
        }
    }

    /// The programs by the names that scripts start them with.
    pub fn programs(&self) -> Vec<(String, PathBuf)> {
        let named = [("python3", &self.python), ("python", &self.python), ("node", &self.node)];
        let named = named.into_iter().chain([("java", &self.java)]);
        named.filter_map(|(name, path)| Some((name.to_owned(), PathBuf::from(path.as_ref()?)))).collect()
    }

    /// The folders in which they are installed.
    pub fn installations(&self) -> Vec<PathBuf> {
        let programs = [&self.python, &self.node, &self.java].into_iter().flatten();
        let folders = programs.filter_map(|program| Some(Path::new(program).parent()?.parent()?.to_owned()));
        let mut folders: Vec<_> = folders.chain(self.python_prefix.as_ref().map(PathBuf::from)).collect();
        folders.sort();
        folders.dedup();
        folders
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = process::Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(if program == "java" { &output.stderr } else { &output.stdout });
    let line = if program == "java" {
        text.lines().find_map(|line| line.trim().strip_prefix("java.home = "))?
    } else {
        text.lines().next()?
    };
    Some(line.trim().to_owned()).filter(|path| output.status.success() && !path.is_empty())
}

impl Command {
    /// The command for `function`, whose code is at `task_root` and whose layers are at `opt` when it runs.
    /// Files are looked up where they are now: in the code folder and in `opt_source`.
    pub fn for_function(
        function: &FunctionConfig,
        task_root: &Path,
        opt_source: &Path,
        opt: &Path,
        interpreters: &Interpreters,
    ) -> Result<Command, CommandError> {
        if let Some(command) = &function.command {
            let (program, arguments) = command
                .split_first()
                .ok_or_else(|| CommandError::EmptyCommand { function: function.name.clone() })?;
            return Ok(Command { program: program.clone(), arguments: arguments.to_vec() });
        }
        let bootstraps = [(&function.code, task_root), (&opt_source.to_path_buf(), opt)];
        for (source, place) in bootstraps {
            if source.join("bootstrap").is_file() {
                return Ok(Command { program: path(place.join("bootstrap")), arguments: Vec::new() });
            }
        }
        let command = managed(function, task_root, opt_source, opt, interpreters)?;
        Ok(match function.environment.get("AWS_LAMBDA_EXEC_WRAPPER") {
            Some(wrapper) => {
                let mut arguments = vec![command.program];
                arguments.extend(command.arguments);
                Command { program: wrapper.clone(), arguments }
            }
            None => command,
        })
    }
}

fn managed(
    function: &FunctionConfig,
    task_root: &Path,
    opt_source: &Path,
    opt: &Path,
    interpreters: &Interpreters,
) -> Result<Command, CommandError> {
    let runtime = &function.runtime;
    let missing = |program| CommandError::NoInterpreter {
        function: function.name.clone(),
        runtime: runtime.clone(),
        program,
    };
    let (program, arguments) = if runtime.starts_with("python") {
        let python = interpreters.python.clone().ok_or_else(|| missing("python3"))?;
        let folders = [function.code.join("awslambdaric"), opt_source.join("python/awslambdaric")];
        if !interpreters.python_has_client && !folders.iter().any(|folder| folder.is_dir()) {
            return Err(CommandError::NoClient {
                function: function.name.clone(),
                runtime: runtime.clone(),
                package: "awslambdaric",
                install: format!("python3 -m pip install --target {} awslambdaric", function.code.display()),
            });
        }
        (python, vec!["-m".into(), "awslambdaric".into(), function.handler.clone()])
    } else if runtime.starts_with("nodejs") {
        let node = interpreters.node.clone().ok_or_else(|| missing("node"))?;
        let client = Path::new("node_modules/aws-lambda-ric/bin");
        let places = [
            (&*function.code, task_root, client.to_owned()),
            (opt_source, opt, Path::new("nodejs").join(client)),
        ];
        let mut candidates = places.into_iter().flat_map(|(source, place, client)| {
            ["index.mjs", "index.js"]
                .map(|file| (source.join(&client).join(file), place.join(&client).join(file)))
        });
        let found = candidates.find(|(source, _)| source.is_file());
        let (_, client) = found.ok_or_else(|| CommandError::NoClient {
            function: function.name.clone(),
            runtime: runtime.clone(),
            package: "aws-lambda-ric",
            install: format!("npm install --prefix {} aws-lambda-ric", function.code.display()),
        })?;
        (node, vec![path(client), function.handler.clone()])
    } else if runtime.starts_with("java") {
        let java = interpreters.java.clone().ok_or_else(|| missing("java"))?;
        let folders = [function.code.clone(), function.code.join("lib"), opt_source.join("java/lib")];
        if !folders.iter().any(|folder| has_java_client(folder)) {
            return Err(CommandError::NoClient {
                function: function.name.clone(),
                runtime: runtime.clone(),
                package: JAVA_CLIENT,
                install: format!(
                    "copy the jars of com.amazonaws:{JAVA_CLIENT} to {}",
                    function.code.join("lib").display()
                ),
            });
        }
        let (task_root, opt) = (path(task_root.to_owned()), path(opt.to_owned()));
        let class_path = format!("{task_root}:{task_root}/lib/*:{opt}/java/lib/*");
        let main = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda";
        (java, vec!["-cp".into(), class_path, main.into(), function.handler.clone()])
    } else {
        return Err(CommandError::NoBootstrap { function: function.name.clone(), runtime: runtime.clone() });
    };
    Ok(Command { program, arguments })
}

/// Whether a jar in the folder, or the folder itself, has the client's main class.
fn has_java_client(folder: &Path) -> bool {
    if folder.join(JAVA_CLIENT_CLASS).is_file() {
        return true;
    }
    let jars = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    jars.filter(|path| path.extension().is_some_and(|extension| extension == "jar")).any(|path| {
        let archive = std::fs::File::open(path).ok().and_then(|file| zip::ZipArchive::new(file).ok());
        archive.is_some_and(|archive| archive.index_for_name(JAVA_CLIENT_CLASS).is_some())
    })
}

fn path(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}
