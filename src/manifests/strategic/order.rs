//! The order of lists that were merged.

use std::cmp::Ordering;

use serde_json::Value;

use super::{ITSELF, PATCH};

/// Whether two values are the same to Go, which knows one kind of number.
pub(in crate::manifests) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.partial_cmp(&b) == Some(Ordering::Equal))
        }
        _ => a == b,
    }
}

/// What distinguishes an item.
fn id<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key == ITSELF { Some(item) } else { item.get(key) }
}

/// The place of the first item in `list` that has the id of `item`.
fn place(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    let wanted = id(item, key)?;
    list.iter().position(|other| id(other, key).is_some_and(|has| same(has, wanted)))
}

/// `merged` with the items that `order` names in its order, and the others as they stood in `server`: each comes before
/// the next named one if that stood behind it, else after all of them.
pub(super) fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: &str) -> Vec<Value> {
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(order, item, key).is_some());
    named.sort_by_key(|item| place(order, item, key));
    others.sort_by_key(|item| place(server, item, key).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for other in others {
        let at = place(server, &other, key);
        let comes_first = |next: &Value| at.zip(place(server, next, key)).is_some_and(|(at, next)| at < next);
        while let Some(next) = named.next_if(|next| !comes_first(next)) {
            arranged.push(next);
        }
        arranged.push(other);
    }
    arranged.extend(named);
    arranged
}

/// Whether the items of a patch are all in `order`, and one after the other as they are there.
pub(super) fn agrees(patch: &[Value], order: &[Value], key: &str) -> bool {
    if order.is_empty() {
        return true;
    }
    let mut rest = order.iter();
    let mut plain = patch.iter().filter(|item| item.get(PATCH).is_none());
    plain.all(|item| rest.any(|other| id(other, key).zip(id(item, key)).is_some_and(|(a, b)| same(a, b))))
}
