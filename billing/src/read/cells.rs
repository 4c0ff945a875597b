//! The cells of a row, and their meaning.

use std::borrow::Cow;

use tailor_sizing::pricing::money::PicoDollars;

use super::columns::{COLUMNS, Column, ExportFormat};
use super::{Problem, Sink};
use crate::arn::Function;
use crate::meter;
use crate::row::{BillRow, Charge};
use crate::{decimal, time};

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Text(Cow<'a, str>),
    Float(f64),
    /// A number of 10⁻¹².
    Pico(i128),
    /// Seconds since the Unix epoch.
    Time(i64),
}

impl Cell<'_> {
    fn text(&self) -> &str {
        match self {
            // The sample data of the FinOps Foundation has this text for absent values.
            Self::Text(text) if text != "NULL" && text != "null" => text.trim(),
            _ => "",
        }
    }

    /// The number; `None` when there is none.
    fn number(&self) -> Result<Option<i128>, ()> {
        match self {
            Self::Pico(pico) => Ok(Some(*pico)),
            Self::Float(number) => decimal::of_float(*number).map(Some).ok_or(()),
            Self::Time(_) => Err(()),
            Self::Text(_) if self.text().is_empty() => Ok(None),
            Self::Text(_) => decimal::parse(self.text()).map(Some).ok_or(()),
        }
    }

    fn time(&self) -> Option<i64> {
        match self {
            Self::Time(at_s) => Some(*at_s).filter(|at_s| *at_s >= 0),
            _ => time::parse(self.text()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Float(number) => number.to_string(),
            Self::Pico(pico) => decimal::format(*pico),
            Self::Time(at_s) => time::format(*at_s),
        }
    }
}

/// The cells of one row, by column. `None` where the row has no value.
pub(super) struct Cells<'a>(pub(super) [Option<Cell<'a>>; COLUMNS]);

impl Default for Cells<'_> {
    fn default() -> Self {
        Self([const { None }; COLUMNS])
    }
}

impl Cells<'_> {
    fn text(&self, column: Column) -> &str {
        self.0[column as usize].as_ref().map_or("", Cell::text)
    }

    fn number(&self, column: Column) -> Result<Option<i128>, (Problem, String)> {
        let Some(cell) = &self.0[column as usize] else { return Ok(None) };
        cell.number().map_err(|()| (Problem::InvalidNumber, format!("{column:?} is {}", cell.show())))
    }

    fn time(&self, column: Column) -> Result<i64, (Problem, String)> {
        let cell = self.0[column as usize].as_ref();
        cell.and_then(Cell::time).ok_or_else(|| {
            (
                Problem::InvalidTime,
                format!("{column:?} is {}", cell.map_or_else(|| "empty".to_owned(), Cell::show)),
            )
        })
    }

    fn is_lambda(&self) -> bool {
        self.text(Column::Service) == "AWSLambda" || self.text(Column::ServiceName) == "AWS Lambda"
    }

    /// Passes the row on if it is of Lambda.
    pub(super) fn finish(&self, format: ExportFormat, row: u64, sink: &mut Sink<'_>) {
        sink.counts.rows += 1;
        if !self.is_lambda() {
            return;
        }
        match self.row(format) {
            Ok(row) => (sink.take)(row, sink.counts),
            Err((kind, example)) => sink.problem(kind, row, &example),
        }
    }

    fn row(&self, format: ExportFormat) -> Result<BillRow, (Problem, String)> {
        let currency = self.text(Column::Currency);
        if !matches!(currency, "" | "USD") {
            return Err((Problem::OtherCurrency, format!("the currency is `{currency}`")));
        }
        let (from_s, until_s) = (self.time(Column::From)?, self.time(Column::Until)?);
        if until_s <= from_s {
            return Err((Problem::InvalidTime, "the end is not after the start".to_owned()));
        }
        let resource = self.text(Column::Resource);
        let function = Function::of_arn(resource);
        let charge = charge(format, self.text(Column::Charge), !self.text(Column::Commitment).is_empty());
        let quantity = match self.number(Column::Quantity)? {
            Some(quantity) => Some(quantity),
            None => self.number(Column::PricedQuantity)?,
        };
        let cost = self.cost(format, charge)?;
        let list_cost = self.number(Column::ListCost)?.map(PicoDollars);
        let region = Some(self.text(Column::Region)).filter(|region| !region.is_empty());
        let region = region.or_else(|| Some(function.as_ref()?.region.as_str())).unwrap_or_default();
        Ok(BillRow {
            account: self.text(Column::Account).to_owned(),
            region: region.to_owned(),
            resource: resource.to_owned(),
            what: meter::recognize(self.text(Column::UsageType), self.text(Column::Description)),
            charge,
            from_s,
            until_s,
            quantity_pico: quantity.unwrap_or(0),
            cost: PicoDollars(cost),
            list_cost,
            function,
        })
    }

    /// What is billed: after discounts where the export has them, and the part of the commitment for covered usage.
    fn cost(&self, format: ExportFormat, charge: Charge) -> Result<i128, (Problem, String)> {
        let order: &[Column] = match (format, charge) {
            (ExportFormat::Cur, Charge::Covered) => {
                &[Column::NetEffectiveCost, Column::EffectiveCost, Column::NetCost, Column::Cost]
            }
            (ExportFormat::Cur, _) => &[Column::NetCost, Column::Cost],
            (_, Charge::Covered) => &[Column::EffectiveCost, Column::Cost],
            _ => &[Column::Cost],
        };
        for column in order {
            if let Some(cost) = self.number(*column)? {
                return Ok(cost);
            }
        }
        Err((Problem::InvalidNumber, "the cost is empty".to_owned()))
    }
}

/// The charge of a line item type of CUR, or of a charge category of FOCUS.
fn charge(format: ExportFormat, kind: &str, has_commitment: bool) -> Charge {
    match (format, kind) {
        (ExportFormat::Cur, "Usage" | "DiscountedUsage") => Charge::Usage,
        (ExportFormat::Cur, "SavingsPlanCoveredUsage") => Charge::Covered,
        (ExportFormat::Cur, kind) if kind.ends_with("Discount") => Charge::Discount,
        (_, "Credit" | "Refund") => Charge::Credit,
        (_, "Tax") => Charge::Tax,
        (ExportFormat::Focus10 | ExportFormat::Focus12, "Usage") => {
            if has_commitment {
                Charge::Covered
            } else {
                Charge::Usage
            }
        }
        (ExportFormat::Focus10 | ExportFormat::Focus12, "Adjustment") => Charge::Credit,
        _ => Charge::Other,
    }
}
