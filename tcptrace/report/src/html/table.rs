//! A table of the page.

use maud::{Markup, html};

use crate::figures::Table;

pub(super) fn table(table: &Table, caption: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label={ "Table: " (caption) } {
            table {
                caption { (caption) }
                thead { tr { @for column in &table.columns { th scope="col" { (column) } } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
