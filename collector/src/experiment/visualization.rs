//! The link of Power Tuning's visualization: the results are in its fragment, which no server receives.

use aws_smithy_types::base64;

use super::outcome::Stat;

/// The address of the visualization.
pub const ADDRESS: &str = "https://lambda-power-tuning.show/";

/// The link: base64 of the sizes (16-bit integers), the durations in ms and the costs in dollars (32-bit floats), all
/// little-endian.
#[must_use]
pub fn link(stats: &[Stat]) -> String {
    let sizes = stats.iter().flat_map(|stat| i16::try_from(stat.value).unwrap_or(i16::MAX).to_le_bytes());
    #[allow(clippy::cast_possible_truncation, reason = "the format has 32-bit floats")]
    let floats = |of: fn(&Stat) -> f64| -> Vec<u8> {
        stats.iter().flat_map(|stat| (of(stat) as f32).to_le_bytes()).collect()
    };
    let parts =
        [sizes.collect::<Vec<_>>(), floats(|stat| stat.average_duration), floats(|stat| stat.average_price)];
    format!("{ADDRESS}#{}", parts.map(base64::encode).join(";"))
}

/// The results in a link; `None` when it has another form.
#[must_use]
pub fn read(link: &str) -> Option<Vec<Stat>> {
    let (_, fragment) = link.split_once('#')?;
    let parts: Vec<Vec<u8>> =
        fragment.split(';').map(|part| base64::decode(part).ok()).collect::<Option<_>>()?;
    let [sizes, durations, costs] = &parts[..] else { return None };
    let sizes: Vec<u32> = sizes
        .chunks_exact(2)
        .map(|bytes| u32::try_from(i16::from_le_bytes([bytes[0], bytes[1]])).ok())
        .collect::<Option<_>>()?;
    let floats = |bytes: &[u8]| -> Vec<f64> {
        let floats = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        floats.collect()
    };
    let (durations, costs) = (floats(durations), floats(costs));
    if durations.len() != sizes.len() || costs.len() != sizes.len() {
        return None;
    }
    let stats = sizes.into_iter().zip(durations).zip(costs);
    Some(
        stats
            .map(|((value, average_duration), average_price)| Stat { value, average_price, average_duration })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_link_is_decoded_and_encoded() {
        let link_text = "https://lambda-power-tuning.show/#gAAAAQACAAQABsAL;ZooQR4yvkUa/pQRGRC5zRaADHUVjOftE;QdWhOEMkoziDT5Q4xhiIOMYYiDi6RNc4";
        let stats = read(link_text).unwrap();
        assert_eq!(
            stats.iter().map(|stat| stat.value).collect::<Vec<_>>(),
            [128, 256, 512, 1_024, 1_536, 3_008]
        );
        assert!(stats[0].average_duration > stats[5].average_duration && stats[0].average_price < 1e-4);
        assert_eq!(link(&stats), link_text);
        assert_eq!(read("https://lambda-power-tuning.show/#gAA;;"), None);
    }
}
