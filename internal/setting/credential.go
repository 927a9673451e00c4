package setting

import (
	"errors"
	"strings"
)

const (
	// Credentials is the directory in which a guest finds its credentials
	// (https://systemd.io/CONTAINER_INTERFACE).
	Credentials = "/run/host/credentials"

	// MaxCredentials is how many bytes the credentials of a guest may have together:
	// systemd reads no more (CREDENTIALS_TOTAL_SIZE_MAX).
	MaxCredentials = 1 << 20

	maxCredentialName = 200 // systemd takes 255; a file is written beside, by a longer name
)

// CheckCredential returns an error for names that systemd refuses, or that a file of the
// configuration cannot have.
func CheckCredential(name string) error {
	odd := func(c rune) bool { return c <= ' ' || c > '~' || c == '/' || c == ':' }
	if name == "" || len(name) > maxCredentialName || name[0] == '.' || strings.HasSuffix(name, "~") || strings.ContainsFunc(name, odd) {
		return errors.New("the name of a credential has 1 to 200 letters, digits and signs, as db.password, and no / or :, no blanks, no . in front and no ~ at the end")
	}
	return nil
}
