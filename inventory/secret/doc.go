// Package secret reads and writes values of an inventory that are encrypted with age.
//
// A [Value] is encrypted when it is read. [Keys.Open] decrypts the values that a
// command needs, together and before any host is asked. [Value.Reveal] returns the
// decrypted text. Printing, logging or marshalling a Value yields "(secret)".
//
// Keys are age keys (X25519 and post-quantum) and SSH keys (Ed25519 and RSA). The
// passphrase of a key is asked for at most once, and only if a value is encrypted for
// the key.
//
// Decrypted text is kept in memory only: no function of the package writes it anywhere.
package secret
