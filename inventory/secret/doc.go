// Package secret holds values that are encrypted with age in files of an inventory,
// and the keys that open them.
//
// A [Value] is sealed when it is read. [Keys.Open] decrypts the values that a command
// needs, all at once and before any host is asked; [Value.Reveal] returns a text that
// was opened. However a Value is printed, logged or marshalled, it is "(secret)".
//
// Keys are age's own (X25519 and post-quantum) and SSH keys (Ed25519 and RSA). A
// key that is protected by a passphrase is asked for at most once, and only if a value
// is encrypted for it.
//
// Plain text is in memory only: no function here writes it anywhere.
package secret
