fn main() {
    lair::hijack();
}
