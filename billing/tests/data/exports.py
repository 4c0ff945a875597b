"""Writes the same usage as exports of AWS in every format, and what a reader must find in them.

Usage: exports.py FOLDER. The numbers are computed with decimals here, independently of the reader.
"""

import csv
import datetime
import gzip
import io
import json
import pathlib
import random
import sys
from decimal import ROUND_HALF_UP, Decimal

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(sys.argv[1])
START = datetime.datetime(2026, 11, 3, tzinfo=datetime.timezone.utc)
TEN = Decimal("1e-10")
METERS = [
    # usage type, description, price, unit
    ("EU-Lambda-GB-Second", "AWS Lambda - Total Compute - EU (Ireland)-Tier-1", "0.0000166667", "Seconds"),
    ("EU-Lambda-GB-Second-ARM", "AWS Lambda - Total Compute for ARM - EU (Ireland)-Tier-1", "0.0000133334", "Seconds"),
    ("EU-Request", "AWS Lambda - Total Requests - EU (Ireland)", "0.0000002", "Requests"),
    ("EU-Lambda-Storage-GB-Second", "AWS Lambda - Ephemeral Storage - EU (Ireland)", "0.000000034", "Seconds"),
]


def usage():
    """Rows of 3 functions, 30 hours and 4 meters, in an order that is not by time."""
    chance = random.Random(7)
    rows = []
    for function in ("pay", "auth", "näme-ü"):
        for hour in range(30):
            for usage_type, description, price, unit in METERS:
                if unit == "Requests":
                    quantity = Decimal(chance.randrange(1, 10**6))
                else:
                    quantity = Decimal(chance.randrange(1, 10**12)) / Decimal(1_024_000)
                    quantity = quantity.quantize(Decimal("1e-9"))
                cost = (quantity * Decimal(price)).quantize(TEN, ROUND_HALF_UP)
                rows.append((function, START + datetime.timedelta(hours=hour), usage_type, description, quantity, cost, price))
    chance.shuffle(rows)
    return rows


def arn(function):
    return f"arn:aws:lambda:eu-west-1:123456789012:function:{function}"


def cur(rows, is_parquet):
    table = []
    for function, at, usage_type, description, quantity, cost, price in rows:
        table.append({
            "identity_line_item_id": f"{function}-{at.isoformat()}-{usage_type}",
            "bill_payer_account_id": "999999999999",
            "line_item_usage_account_id": "123456789012",
            "line_item_line_item_type": "Usage",
            "line_item_usage_start_date": at,
            "line_item_usage_end_date": at + datetime.timedelta(hours=1),
            "line_item_product_code": "AWSLambda",
            "line_item_usage_type": usage_type,
            "line_item_operation": "Invoke",
            "line_item_resource_id": arn(function),
            "line_item_usage_amount": quantity,
            "line_item_currency_code": "USD",
            "line_item_unblended_rate": price,
            "line_item_unblended_cost": cost,
            "line_item_line_item_description": description,
            "pricing_public_on_demand_cost": cost,
            "product": [("product_name", "AWS Lambda")] if is_parquet else '{"product_name":"AWS Lambda"}',
            "product_region_code": "eu-west-1",
            "resource_tags": [("user_team", "payments")] if is_parquet else '{"user_team":"payments"}',
        })
    other = dict(table[0], line_item_product_code="AmazonS3", line_item_resource_id="bucket")
    return table + [other]


def focus(rows, version):
    table = []
    for function, at, usage_type, description, quantity, cost, price in rows:
        row = {
            "BilledCost": cost,
            "BillingAccountId": "999999999999",
            "BillingCurrency": "USD",
            "BillingPeriodStart": datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc),
            "ChargeCategory": "Usage",
            "ChargeClass": None,
            "ChargeDescription": description,
            "ChargePeriodStart": at,
            "ChargePeriodEnd": at + datetime.timedelta(hours=1),
            "CommitmentDiscountId": None,
            "ConsumedQuantity": quantity,
            "EffectiveCost": cost,
            "ListCost": cost,
            "PricingQuantity": quantity,
            "RegionId": "eu-west-1",
            "ResourceId": arn(function),
            "ServiceName": "AWS Lambda",
            "SubAccountId": "123456789012",
            "x_ServiceCode": "AWSLambda",
        }
        row["x_UsageType" if version == "1.0" else "SkuMeter"] = usage_type
        table.append(row)
    other = dict(table[0], ServiceName="Amazon Simple Storage Service", x_ServiceCode="AmazonS3", ResourceId="bucket")
    return table + [other]


def text(value):
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def as_csv(table, names=None):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names or list(table[0]))
    writer.writerows([text(value) for value in row.values()] for row in table)
    return out.getvalue().encode()


def as_parquet(table, path, compression, numbers, unit="ms"):
    fields = []
    for name, value in table[0].items():
        if isinstance(value, datetime.datetime):
            kind = pa.timestamp(unit, tz="UTC")
        elif isinstance(value, Decimal):
            kind = numbers
        elif isinstance(value, list):
            kind = pa.map_(pa.string(), pa.string())
        else:
            kind = pa.string()
        fields.append(pa.field(name, kind))
    columns = []
    for field in fields:
        values = [row[field.name] for row in table]
        if pa.types.is_floating(field.type):
            values = [float(value) for value in values]
        columns.append(pa.array(values, field.type))
    # Several row groups, as in large files.
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), path, compression=compression, row_group_size=100)


def main():
    rows = usage()
    legacy = {
        "line_item_usage_account_id": "lineItem/UsageAccountId",
        "line_item_line_item_type": "lineItem/LineItemType",
        "line_item_usage_start_date": "lineItem/UsageStartDate",
        "line_item_usage_end_date": "lineItem/UsageEndDate",
        "line_item_product_code": "lineItem/ProductCode",
        "line_item_usage_type": "lineItem/UsageType",
        "line_item_resource_id": "lineItem/ResourceId",
        "line_item_usage_amount": "lineItem/UsageAmount",
        "line_item_currency_code": "lineItem/CurrencyCode",
        "line_item_unblended_cost": "lineItem/UnblendedCost",
        "line_item_line_item_description": "lineItem/LineItemDescription",
        "pricing_public_on_demand_cost": "pricing/publicOnDemandCost",
        "product_region_code": "product/regionCode",
    }
    cur_text = as_csv(cur(rows, False))
    names = [legacy.get(name, name) for name in cur(rows, False)[0]]
    files = {
        "cur2.csv": cur_text,
        "cur2.csv.gz": gzip.compress(cur_text),
        "legacy.csv": as_csv(cur(rows, False), names),
        "focus10.csv.gz": gzip.compress(as_csv(focus(rows, "1.0"))),
        "focus12.csv": as_csv(focus(rows, "1.2")),
    }
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    with pa.CompressedOutputStream(str(FOLDER / "focus12.csv.zst"), "zstd") as out:
        out.write(as_csv(focus(rows, "1.2")))
    as_parquet(cur(rows, True), FOLDER / "cur2.parquet", "snappy", pa.float64())
    as_parquet(cur(rows, True), FOLDER / "cur2-decimal.parquet", "gzip", pa.decimal128(38, 12), "us")
    as_parquet(focus(rows, "1.0"), FOLDER / "focus10.parquet", "zstd", pa.float64())
    as_parquet(focus(rows, "1.2"), FOLDER / "focus12.parquet", "snappy", pa.float64())
    sums = {}
    for function, at, usage_type, _, quantity, cost, _ in rows:
        key = f"{function} {at.date()} {usage_type}"
        old = sums.get(key, (Decimal(0), Decimal(0)))
        sums[key] = (old[0] + quantity, old[1] + cost)
    result = {key: [f"{quantity:f}", f"{cost:f}"] for key, (quantity, cost) in sums.items()}
    print(json.dumps({"rows": len(rows), "sums": result}))


main()
