//! The smallest program that can be a keeper; the tests launch it.
fn main() {
    lair_actors::keeper::hijack();
}
