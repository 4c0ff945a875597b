//! Prices and costs: exact money, price tables, bills, and the expected cost at other memory sizes.

pub mod bill;
pub mod cost_model;
pub mod embedded_rates;
pub mod full_bill;
pub mod managed_instances;
pub mod meters;
pub mod money;
pub mod plan;
mod price_json;
pub mod price_list;
pub mod prices;
