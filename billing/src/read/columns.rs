//! The columns of the formats.
//!
//! Names are compared by their letters and digits only. So `line_item_usage_type` of CUR 2.0 is the same column as
//! `lineItem/UsageType` of the legacy CUR.

use std::fmt;

/// A format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExportFormat {
    /// Cost and Usage Report, 2.0 or legacy.
    Cur,
    /// FOCUS 1.0.
    Focus10,
    /// FOCUS 1.2.
    Focus12,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cur => "CUR 2.0",
            Self::Focus10 => "FOCUS 1.0",
            Self::Focus12 => "FOCUS 1.2",
        })
    }
}

/// What a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Service,
    ServiceName,
    Charge,
    From,
    Until,
    Account,
    Region,
    Resource,
    UsageType,
    Description,
    Quantity,
    PricedQuantity,
    Cost,
    NetCost,
    ListCost,
    EffectiveCost,
    NetEffectiveCost,
    Currency,
    Commitment,
}

/// Number of columns.
pub(super) const COLUMNS: usize = Column::Commitment as usize + 1;

type Names = &'static [(Column, &'static str)];

const CUR: Names = &[
    (Column::Service, "lineitemproductcode"),
    (Column::Charge, "lineitemlineitemtype"),
    (Column::From, "lineitemusagestartdate"),
    (Column::Until, "lineitemusageenddate"),
    (Column::Account, "lineitemusageaccountid"),
    (Column::Region, "productregioncode"),
    (Column::Resource, "lineitemresourceid"),
    (Column::UsageType, "lineitemusagetype"),
    (Column::Description, "lineitemlineitemdescription"),
    (Column::Quantity, "lineitemusageamount"),
    (Column::Cost, "lineitemunblendedcost"),
    (Column::NetCost, "lineitemnetunblendedcost"),
    (Column::ListCost, "pricingpublicondemandcost"),
    (Column::EffectiveCost, "savingsplansavingsplaneffectivecost"),
    (Column::NetEffectiveCost, "savingsplannetsavingsplaneffectivecost"),
    (Column::Currency, "lineitemcurrencycode"),
    (Column::Commitment, "savingsplansavingsplanarn"),
];

const FOCUS: Names = &[
    (Column::Service, "xservicecode"),
    (Column::ServiceName, "servicename"),
    (Column::Charge, "chargecategory"),
    (Column::From, "chargeperiodstart"),
    (Column::Until, "chargeperiodend"),
    (Column::Account, "subaccountid"),
    (Column::Region, "regionid"),
    (Column::Resource, "resourceid"),
    // In FOCUS 1.2 of AWS, the usage type is the meter of the SKU.
    (Column::UsageType, "xusagetype"),
    (Column::UsageType, "skumeter"),
    (Column::Description, "chargedescription"),
    (Column::Quantity, "consumedquantity"),
    (Column::PricedQuantity, "pricingquantity"),
    (Column::Cost, "billedcost"),
    (Column::ListCost, "listcost"),
    (Column::EffectiveCost, "effectivecost"),
    (Column::Currency, "billingcurrency"),
    (Column::Commitment, "commitmentdiscountid"),
];

/// Where the columns of a file are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) format: ExportFormat,
    /// Position of each column in the file.
    pub(super) positions: [Option<usize>; COLUMNS],
}

impl Layout {
    /// The layout of a file with these headers; `None` when it is not of a known format.
    pub(super) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let headers: Vec<String> = headers.map(plain).collect();
        let has = |name: &str| headers.iter().any(|header| header == name);
        let (format, names) = if has("lineitemusagetype") {
            (ExportFormat::Cur, CUR)
        } else if has("billedcost") && has("chargeperiodstart") {
            // These columns came with 1.1 and 1.2.
            let is_newer = has("skumeter") || has("pricingcurrency") || has("billingaccounttype");
            (if is_newer { ExportFormat::Focus12 } else { ExportFormat::Focus10 }, FOCUS)
        } else {
            return None;
        };
        let mut positions = [None; COLUMNS];
        for (column, name) in names {
            let at = headers.iter().position(|header| header == name);
            positions[*column as usize] = positions[*column as usize].or(at);
        }
        let needed = [Column::From, Column::Until, Column::Cost, Column::Charge];
        let is_complete = needed.iter().all(|column| positions[*column as usize].is_some());
        is_complete.then_some(Self { format, positions })
    }
}

/// The letters and digits of a name.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_by_their_columns() {
        let of = |header: &str| Layout::of(header.split(',')).map(|layout| layout.format);
        let legacy = "identity/LineItemId,lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/UsageType,\
            lineItem/LineItemType,lineItem/UnblendedCost";
        let snake = "line_item_usage_start_date,line_item_usage_end_date,line_item_usage_type,line_item_line_item_type,\
            line_item_unblended_cost";
        let focus = "\u{feff}BilledCost,ChargePeriodStart,ChargePeriodEnd,ChargeCategory";
        assert_eq!([of(legacy), of(snake)], [Some(ExportFormat::Cur); 2]);
        assert_eq!(of(focus), Some(ExportFormat::Focus10));
        assert_eq!(of(&format!("{focus},SkuMeter")), Some(ExportFormat::Focus12));
        assert_eq!(of("line_item_usage_type,line_item_unblended_cost"), None, "no time");
        assert_eq!(of("a,b"), None);
    }
}
