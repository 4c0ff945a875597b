//! `tailor tune`: measures a function at several memory sizes.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser};

use tailor_sizing::units::Megabytes;

use super::archive::S3Args;
use super::arguments::ShowArgs;
use super::show;
use super::streams::{confirm, note};
use crate::experiment::aws::{Configuration, FunctionCalls};
use crate::experiment::input::{Input, PowerValues, Strategy};
use crate::experiment::plan::{Plan, Prediction};
use crate::experiment::run::{Experiment, clean_up};
use crate::experiment::s3;
use crate::experiment::state::{Record, StateFile};
use crate::files::read_text;
use crate::patch::advice;
use crate::prices;
use crate::query::Format;
use crate::s3::{Connection, S3};
use crate::store::FunctionKey;
use crate::tuner::aws::AwsLambda;

mod alias;
mod result;

/// What is measured, and how.
#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Name or ARN of the function, also with a version or an alias that has the code of `$LATEST`.
    #[arg(required_unless_present_any = ["input", "cleanup"])]
    function: Option<String>,
    /// JSON file with the input of AWS Lambda Power Tuning. Options take precedence.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Memory sizes, MB.
    #[arg(long, value_name = "MB,...", value_delimiter = ',')]
    power_values: Vec<u32>,
    /// Most invocations at each size.
    #[arg(long)]
    num: Option<u32>,
    /// The event as JSON, or a JSON list of `{"payload", "weight"}`; `@FILE` reads it from a file.
    #[arg(long)]
    payload: Option<String>,
    /// The event as an object of S3: `s3://BUCKET/KEY`.
    #[arg(long, conflicts_with = "payload")]
    payload_s3: Option<String>,
    /// Invoke at one size at the same time.
    #[arg(long)]
    parallel_invocation: bool,
    /// What is optimized.
    #[arg(long, value_enum)]
    strategy: Option<Strategy>,
    /// Weight of cost for `balanced`, from 0 to 1.
    #[arg(long)]
    balanced_weight: Option<f64>,
    /// Share of the fastest and of the slowest invocations that are left out, from 0 to 0.4.
    #[arg(long)]
    discard_top_bottom: Option<f64>,
    /// Invoke the function only once, at its present size.
    #[arg(long)]
    dry_run: bool,
    /// Measure first invocations of environments only.
    #[arg(long)]
    only_cold_starts: bool,
    /// Set the best size at the end.
    #[arg(long)]
    auto_optimize: bool,
    /// Set this alias to a version with the best size; needs `--auto-optimize`. The alias must serve the code and the settings of
    /// `$LATEST`, or not exist.
    #[arg(long)]
    auto_optimize_alias: Option<String>,
    /// Function that is invoked before each invocation; what it returns is the event.
    #[arg(long, value_name = "ARN")]
    pre_processor: Option<String>,
    /// Function that is invoked after each invocation, with the response.
    #[arg(long, value_name = "ARN")]
    post_processor: Option<String>,
    /// Error type that counts as success. Can be repeated.
    #[arg(long)]
    allowed_exception: Vec<String>,
    /// Give every size all its invocations, also when the choice is settled before.
    #[arg(long)]
    exhaustive: bool,
    /// Spend the estimated cost without a question.
    #[arg(long)]
    yes: bool,
    /// Remove what an interrupted experiment made, and restore the function.
    #[arg(long)]
    cleanup: bool,
    /// File with the record of the running experiment.
    #[arg(long, value_name = "FILE", default_value = "tailor-tune.json")]
    state: PathBuf,
    /// Begin with the sizes that this advice predicts: a file with the output of `tailor functions --format json`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "server"])]
    advice: Option<PathBuf>,
    /// Begin with the sizes that the telemetry in this data folder predicts, and keep the result there: `tailor function` shows it.
    /// What the layer measures in the experiment corrects the predictions by itself.
    #[arg(long, conflicts_with = "server")]
    data: Option<String>,
    /// Begin with the sizes that a running collector predicts.
    #[arg(long)]
    server: Option<String>,
    /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Region, if it is not in the ARN or in `AWS_REGION`.
    #[arg(long)]
    region: Option<String>,
    /// URL of the Lambda API, if it is not AWS; `AWS_ENDPOINT_URL_LAMBDA` does the same.
    #[arg(long)]
    lambda_endpoint: Option<String>,
    /// Write the result to this file in place of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a picture of the result to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Output format. Without it, the JSON of AWS Lambda Power Tuning.
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    s3: S3Args,
}

/// A function as it is named in an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    key: FunctionKey,
    qualifier: Option<String>,
}

impl Named {
    /// Reads a name or an ARN, with or without a qualifier.
    fn parse(text: &str, region: Option<&str>) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (arn_region, account, rest) = match parts[..] {
            ["arn", _, "lambda", region, account, "function", ref rest @ ..] => (Some(region), account, rest),
            [account, "function", ref rest @ ..] => (None, account, rest),
            ref rest => (None, "", rest),
        };
        let (name, qualifier) = match rest {
            [name] => (*name, None),
            [name, qualifier] => (*name, Some((*qualifier).to_owned())),
            _ => bail!("`{text}` is not the name or the ARN of a function"),
        };
        let region = arn_region.or(region).map(str::to_owned);
        let region = region.or_else(|| std::env::var("AWS_REGION").ok());
        let region = region.or_else(|| std::env::var("AWS_DEFAULT_REGION").ok());
        let region =
            region.context("the region is not known: add `--region`, or use the ARN of the function")?;
        let key = FunctionKey { account: account.to_owned(), region, name: name.to_owned() };
        Ok(Self { key, qualifier })
    }
}

pub(super) fn run(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(tune(args))
}

/// A client of S3, by default in the region of the function.
async fn client_of_s3(args: &S3Args, region: &str) -> S3 {
    let connection = args.connection();
    // A server that the SDK's variable names is rarely one that has a host name for each bucket.
    let is_compatible = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    S3::new(&Connection {
        region: connection.region.or_else(|| Some(region.to_owned())),
        path_style: connection.path_style || is_compatible,
        ..connection
    })
    .await
}

async fn tune(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    if args.cleanup {
        return remove_remains(args).await;
    }
    let mut input = input(args)?;
    let mut named = Named::parse(&input.function, args.region.as_deref())?;
    let lambda = AwsLambda::new(args.lambda_endpoint.clone(), None, f64::INFINITY).await;
    if let Some(object) = input.payload_s3.take() {
        input.payload = Some(s3::object(&client_of_s3(&args.s3, &named.key.region).await, &object).await?);
    }
    input.check()?;
    let client = lambda.client_in(&named.key.region).await;
    let latest = FunctionCalls::new(client.clone(), &named.key, None).ready(None).await?;
    if !latest.account().is_empty() {
        named.key.account = latest.account().to_owned();
    }
    let calls = FunctionCalls::new(client, &named.key, None);
    check_code(&calls, &named, &latest).await?;
    if input.dry_run {
        return dry_run(&calls, &named, &input).await;
    }
    let rates = prices::load(args.prices.as_deref())?.rates(&named.key.region, latest.architecture)?;
    let alias = match &input.auto_optimize_alias {
        Some(name) => alias::read(&calls, name, &latest).await?,
        None => None,
    };
    let curve = curve(args, &named.key)?;
    let plan = Plan::new(&input, &latest, &rates, &curve, args.exhaustive)?;
    if !is_confirmed(args, &plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let region = &named.key.region;
    let before = processor(&lambda, input.pre_processor.as_deref(), region).await?;
    let after = processor(&lambda, input.post_processor.as_deref(), region).await?;
    let record = record(args, &named.key, &latest);
    let state = StateFile::create(&args.state, &record)?;
    let experiment = Experiment {
        calls: calls.clone(),
        before,
        after,
        input,
        plan,
        rates,
        configuration: latest,
        alias,
        record,
        is_exhaustive: args.exhaustive,
    };
    let measured = tokio::select! {
        measured = experiment.measure(|text| note(format_args!("tailor: {text}"))) => measured.map_err(anyhow::Error::from),
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    let cleaned = clean_up(&calls, &experiment.record).await;
    cleaned.with_context(|| {
        format!("not everything is removed: run `tailor tune --cleanup --state {}`", args.state.display())
    })?;
    state.remove()?;
    let outcome = measured?;
    let optimized = if experiment.input.auto_optimize {
        experiment.optimize(Megabytes(outcome.power)).await
    } else {
        Ok(())
    };
    // What was measured is shown also when the size could not be set.
    result::write(args, &named.key.name, &outcome)?;
    result::store_beside_advice(args, &named.key, &outcome)?;
    optimized?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the version or alias that is named has the code of `$LATEST`, which is measured.
async fn check_code(calls: &FunctionCalls, named: &Named, latest: &Configuration) -> anyhow::Result<()> {
    let Some(qualifier) = &named.qualifier else { return Ok(()) };
    let version = calls.configuration(Some(qualifier)).await?;
    if version.code_sha256 != latest.code_sha256 {
        bail!(
            "`{qualifier}` of `{}` has other code than `$LATEST`: only the code of `$LATEST` can be published at other sizes",
            named.key.name
        );
    }
    Ok(())
}

/// The function that is invoked before or after each invocation.
async fn processor(
    lambda: &AwsLambda,
    name: Option<&str>,
    region: &str,
) -> anyhow::Result<Option<FunctionCalls>> {
    let Some(name) = name else { return Ok(None) };
    let Named { key, qualifier } = Named::parse(name, Some(region))?;
    let client = lambda.client_in(&key.region).await;
    Ok(Some(FunctionCalls::new(client, &key, qualifier.as_deref())))
}

fn record(args: &TuneArgs, key: &FunctionKey, latest: &Configuration) -> Record {
    let id = u64::from(std::process::id()) ^ crate::clock::now_us();
    Record {
        function: key.name.clone(),
        account: key.account.clone(),
        region: key.region.clone(),
        endpoint: args.lambda_endpoint.clone(),
        marker: format!("tailor tune {id:016x}"),
        memory_mb: latest.memory.0,
        description: latest.description.clone(),
    }
}

/// Ctrl-C, or the signal with which a service is stopped.
async fn interrupted() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminate) = terminate else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// The input of the file and of the options.
fn input(args: &TuneArgs) -> anyhow::Result<Input> {
    let mut input = match &args.input {
        Some(file) => serde_json::from_str(&text(file)?)
            .with_context(|| format!("{} is not the input of Power Tuning", file.display()))?,
        None => Input::default(),
    };
    if let Some(function) = &args.function {
        input.function.clone_from(function);
    }
    if !args.power_values.is_empty() {
        input.power_values = Some(PowerValues::List(args.power_values.clone()));
    }
    if let Some(payload) = &args.payload {
        let json =
            payload.strip_prefix('@').map_or_else(|| Ok(payload.clone()), |file| text(Path::new(file)))?;
        input.payload = Some(serde_json::from_str(&json).context("`--payload` is not JSON")?);
        input.payload_s3 = None;
    }
    input.num = args.num.or(input.num);
    input.strategy = args.strategy.unwrap_or(input.strategy);
    input.balanced_weight = args.balanced_weight.or(input.balanced_weight);
    input.discard_top_bottom = args.discard_top_bottom.or(input.discard_top_bottom);
    for (flag, field) in [
        (args.parallel_invocation, &mut input.parallel_invocation),
        (args.dry_run, &mut input.dry_run),
        (args.only_cold_starts, &mut input.only_cold_starts),
        (args.auto_optimize, &mut input.auto_optimize),
    ] {
        *field |= flag;
    }
    for (option, field) in [
        (&args.payload_s3, &mut input.payload_s3),
        (&args.auto_optimize_alias, &mut input.auto_optimize_alias),
        (&args.pre_processor, &mut input.pre_processor),
        (&args.post_processor, &mut input.post_processor),
    ] {
        if option.is_some() {
            field.clone_from(option);
        }
    }
    input.allowed_exceptions.extend(args.allowed_exception.iter().cloned());
    Ok(input)
}

fn text(file: &Path) -> anyhow::Result<String> {
    read_text(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The predictions of the telemetry; none without telemetry.
fn curve(args: &TuneArgs, function: &FunctionKey) -> anyhow::Result<Vec<Prediction>> {
    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        show: ShowArgs,
    }
    let reports = match (&args.advice, &args.data, &args.server) {
        (Some(file), ..) => text(file)?,
        (None, None, None) => return Ok(Vec::new()),
        (None, data, server) => {
            let place = data
                .as_ref()
                .map(|data| ("--data", data))
                .or_else(|| server.as_ref().map(|s| ("--server", s)));
            let place = place.map(|(name, value)| [name.to_owned(), value.clone()]);
            let show = Only::try_parse_from(
                std::iter::once("tailor".to_owned()).chain(place.into_iter().flatten()),
            )?
            .show;
            // It has a runtime of its own.
            tokio::task::block_in_place(|| {
                std::thread::scope(|scope| {
                    let function = [function.name.clone()];
                    scope
                        .spawn(move || show::reports(&show, &function))
                        .join()
                        .unwrap_or_else(|_| bail!("cannot read the telemetry"))
                })
            })?
        }
    };
    let advised = advice::read(&reports).context(
        "the advice has another form: use the output of `tailor functions --format json` of this version",
    )?;
    let agrees = |own: &str, other: &str| own.is_empty() || other.is_empty() || own == other;
    let full = advised
        .iter()
        .filter(|advised| advised.name == function.name)
        .find(|a| agrees(&a.account, &function.account) && agrees(&a.region, &function.region))
        .and_then(|advised| advised.advice.full.as_ref());
    let points = full.map(|full| full.curve.as_slice()).unwrap_or_default();
    Ok(points
        .iter()
        .map(|point| Prediction {
            memory: Megabytes(point.memory_mb),
            duration_ms: point.mean.mean_ms,
            cost_pico: point.cost_per_million.0 as f64 / 1e6,
        })
        .collect())
}

/// Shows the estimate, and requests a confirmation unless `--yes` is set.
fn is_confirmed(args: &TuneArgs, plan: &Plan) -> anyhow::Result<bool> {
    let sizes: Vec<_> = plan.measured.iter().map(|size| size.0.to_string()).collect();
    let expected =
        plan.expected.map(|cost| format!("about ${:.6} expected, ", cost.to_dollars())).unwrap_or_default();
    note(format_args!(
        "tailor: up to {} invocations at each of {} MB: {expected}${:.6} if every invocation runs until its timeout",
        plan.invocations,
        sizes.join(", "),
        plan.highest.to_dollars()
    ));
    note(
        "tailor: `$LATEST` gets each of these sizes for a short time, while the versions are published: invocations of `$LATEST` (without a version or an alias, or through an alias of it) run at that size then",
    );
    if args.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("the cost is not confirmed: add `--yes`");
    }
    confirm("Continue?")
}

async fn dry_run(calls: &FunctionCalls, named: &Named, input: &Input) -> anyhow::Result<ExitCode> {
    let payload =
        input.payloads()?.first().map(|payload| payload.to_string().into_bytes()).unwrap_or_default();
    let response = calls.invoke(named.qualifier.as_deref(), payload).await?;
    if response.is_error {
        bail!("the function failed: {}", String::from_utf8_lossy(&response.payload));
    }
    note("tailor: the function can be invoked");
    Ok(ExitCode::SUCCESS)
}

async fn remove_remains(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let Some((state, record)) = StateFile::open(&args.state)? else {
        note(format_args!("tailor: nothing to clean up: {} does not exist", args.state.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let lambda =
        AwsLambda::new(args.lambda_endpoint.clone().or_else(|| record.endpoint.clone()), None, f64::INFINITY)
            .await;
    let calls = FunctionCalls::new(lambda.client_in(&record.region).await, &record.key(), None);
    let deleted = clean_up(&calls, &record).await?;
    state.remove()?;
    note(format_args!("tailor: `{}` is restored; {deleted} versions are deleted", record.function));
    Ok(ExitCode::SUCCESS)
}
