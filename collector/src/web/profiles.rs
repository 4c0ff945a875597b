//! The profiles of a function.

use maud::{Markup, html};

use super::layout::unbroken;
use crate::profiles::Profile;
use crate::render::units::{instant, kilobytes};

pub(super) fn profiles(profiles: &[Profile]) -> Markup {
    html! {
        section.card {
            h2 { "Profiles" }
            @if profiles.is_empty() {
                p.sub {
                    "There is none. With " code { "TAILOR_PROFILES=true" } ", the extension uploads the files that the function \
                     leaves in " code { "/tmp/tailor" } "."
                }
            } @else {
                div.scroll {
                    table {
                        thead { tr {
                            @for name in ["Time (UTC)", "File", "Format", "Invocation"] { th scope="col" { (name) } }
                            @for name in ["Memory", "Size"] { th.number scope="col" { (name) } }
                        } }
                        tbody {
                            @for profile in profiles {
                                tr {
                                    th scope="row" { (instant(profile.completed_at_us)) }
                                    td data-label="File" { a href=(profile.download) { (profile.name) } }
                                    td data-label="Format" { (profile.format) }
                                    td data-label="Invocation" { code { (profile.request_id.as_deref().unwrap_or("Init")) } }
                                    td.number data-label="Memory" { (unbroken(&profile.memory.to_string())) }
                                    td.number data-label="Size" { (unbroken(&kilobytes(profile.bytes))) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
