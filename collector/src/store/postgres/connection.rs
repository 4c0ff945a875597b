//! Connections: a fixed number of them, opened when first needed, with their prepared statements.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::database::Database;
use super::errors::{Attempts, Failure};
use crate::store::StoreError;

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// The parameters of a statement.
pub(super) type Parameters<'a> = Vec<Parameter<'a>>;

/// How a transaction begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// One snapshot for all queries, so that a batch is either pending or compacted in all of them.
    Read,
    /// Each statement sees what was committed before it, where the engine has that.
    Write,
}

/// An open connection.
pub(super) struct Connection {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Connection {
    async fn statement(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs statements without parameters or results.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Runs a statement; returns the number of rows changed.
    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Failure> {
        Ok(self.client.execute(&self.statement(sql).await?, parameters).await?)
    }

    /// Runs a statement with each of the parameters, without waiting for one result before the next is sent. Returns the
    /// numbers of rows changed.
    pub(super) async fn execute_each(&self, sql: &str, each: &[Parameters<'_>]) -> Result<Vec<u64>, Failure> {
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = self.statement(sql).await?;
        let sent = each.iter().map(|parameters| self.client.execute(&statement, parameters));
        Ok(try_join_all(sent).await?)
    }

    /// The rows of a query.
    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        Ok(self.client.query(&self.statement(sql).await?, parameters).await?)
    }

    /// The rows of a query for each of the parameters, as [`Self::execute_each`].
    pub(super) async fn query_each(
        &self,
        sql: &str,
        each: &[Parameters<'_>],
    ) -> Result<Vec<Vec<Row>>, Failure> {
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = self.statement(sql).await?;
        let sent = each.iter().map(|parameters| self.client.query(&statement, parameters));
        Ok(try_join_all(sent).await?)
    }

    /// Calls `visit` with each row of a query until it returns `false`. Only a part of the rows is in memory.
    pub(super) async fn for_each(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        mut visit: impl FnMut(&Row) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let statement = self.statement(sql).await?;
        let mut rows = pin!(self.client.query_raw(&statement, parameters.iter().copied()).await?);
        while let Some(row) = rows.try_next().await? {
            if !visit(&row)? {
                break;
            }
        }
        Ok(())
    }
}

/// The connections.
pub(super) struct Pool {
    database: Database,
    permits: Arc<Semaphore>,
    // A std mutex is enough: it is locked only to push or pop.
    idle: Mutex<Vec<Arc<Connection>>>,
}

impl Pool {
    pub(super) fn new(database: Database, connections: usize) -> Self {
        Self { database, permits: Arc::new(Semaphore::new(connections)), idle: Mutex::default() }
    }

    /// A connection for one use. It is returned with [`Self::put_back`]; otherwise it is closed, so that a connection
    /// whose use ended half-way is not used again.
    async fn take(&self) -> Result<(OwnedSemaphorePermit, Arc<Connection>), Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) if connection.client.is_closed() => continue,
                Some(connection) => connection,
                None => {
                    let client = self.database.connect().await?;
                    Arc::new(Connection { client, statements: Mutex::default() })
                }
            };
            return Ok((permit, connection));
        }
    }

    fn put_back(&self, connection: Arc<Connection>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Runs `work` on a connection, each statement on its own, with one attempt.
    pub(super) async fn once<T, F, Fut>(&self, work: F) -> Result<T, Failure>
    where
        F: FnOnce(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let (_permit, connection) = self.take().await?;
        let result = work(Arc::clone(&connection)).await;
        if !result.as_ref().is_err_and(Failure::is_disconnect) {
            self.put_back(connection);
        }
        result
    }

    /// Runs `work` in a transaction. After a conflict or on a lost connection, it runs again from the start.
    pub(super) async fn transaction<T, F, Fut>(&self, begin: Begin, work: F) -> Result<T, StoreError>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut attempts = Attempts::new();
        loop {
            match self.attempt(begin, &work).await {
                Ok(result) => return Ok(result),
                Err(failure) => attempts.next(failure).await?,
            }
        }
    }

    async fn attempt<T, F, Fut>(&self, begin: Begin, work: &F) -> Result<T, Failure>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let (_permit, connection) = self.take().await?;
        connection
            .batch(match begin {
                Begin::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                Begin::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            })
            .await?;
        let result = match work(Arc::clone(&connection)).await {
            Ok(result) => connection.batch("COMMIT").await.map(|()| result),
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) => self.put_back(connection),
            Err(failure) if failure.is_disconnect() => {}
            Err(_) => {
                if connection.batch("ROLLBACK").await.is_ok() {
                    self.put_back(connection);
                }
            }
        }
        result
    }
}
