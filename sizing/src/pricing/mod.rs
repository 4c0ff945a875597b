//! Prices and costs: exact money, price tables, bills, and the expected cost at other memory sizes.

pub mod bill;
pub mod cost_model;
pub mod money;
pub mod plan;
pub mod price_list;
pub mod prices;
