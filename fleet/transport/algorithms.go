package transport

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keyExchanges returns the key exchanges in order: those safe against quantum
// computers first, then cheap ones first. SHA-1 is left out.
func keyExchanges() []string {
	return []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
		ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521,
		ssh.KeyExchangeDH14SHA256,
	}
}

// config returns the algorithms of a connection. It is an error if a list leaves none
// that the library has: a weaker one must not take its place.
func (a Algorithms) config() (c ssh.Config, err error) {
	c.SetDefaults()
	all, old := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	for _, list := range []struct {
		option, spec string
		into         *[]string
		defaults     []string
		known        []string
	}{
		{"KexAlgorithms", a.KeyExchanges, &c.KeyExchanges, keyExchanges(), append(all.KeyExchanges, old.KeyExchanges...)},
		{"Ciphers", a.Ciphers, &c.Ciphers, c.Ciphers, append(all.Ciphers, old.Ciphers...)},
		{"MACs", a.MACs, &c.MACs, c.MACs, append(all.MACs, old.MACs...)},
		{"HostKeyAlgorithms", a.HostKeys, new([]string), plainAlgorithms, append(all.HostKeys, old.HostKeys...)},
		{"PubkeyAcceptedAlgorithms", a.PublicKeys, new([]string), plainAlgorithms, append(all.PublicKeyAuths, old.PublicKeyAuths...)},
	} {
		*list.into = choose(list.spec, list.defaults, list.known)
		if len(*list.into) == 0 {
			return c, fmt.Errorf("%s %s: vsfleet has none of these algorithms; it has %s", list.option, list.spec, strings.Join(list.known, ","))
		}
	}
	return c, nil
}

// hostKeys returns the algorithms to ask a host for: of those that suit the keys that are
// known, the ones that are wanted. If none is wanted, those that suit remain, as a
// known key is better than one that is not.
func (a Algorithms) hostKeys(suitable []string) []string {
	if a.HostKeys == "" {
		return suitable
	}
	wanted := choose(a.HostKeys, append(slices.Clone(certAlgorithms), plainAlgorithms...), suitable)
	if len(wanted) == 0 {
		return suitable
	}
	return wanted
}

// accepts reports whether a key may be offered by PubkeyAcceptedAlgorithms.
func (a Algorithms) accepts(key ssh.PublicKey) bool {
	if a.PublicKeys == "" {
		return true
	}
	kinds := []string{key.Type()}
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		kinds = []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSA}
	case ssh.CertAlgoRSAv01:
		kinds = []string{ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSAv01}
	}
	list := strings.TrimLeft(a.PublicKeys, "+^")
	not, minus := strings.CutPrefix(list, "-")
	for _, kind := range kinds {
		switch {
		case minus && !matchesAny(kind, strings.Split(not, ",")):
			return true
		case !minus && (a.PublicKeys != list || matchesAny(kind, strings.Split(list, ","))):
			return true
		}
	}
	return false
}

// choose returns the algorithms that a list of ssh_config chooses among those that are
// known.
func choose(spec string, defaults, known []string) []string {
	if spec == "" {
		return defaults
	}
	sign := spec[0]
	patterns := strings.Split(strings.TrimLeft(spec, "+-^"), ",")
	var named []string
	for _, pattern := range patterns {
		for _, name := range known {
			if matchesAny(name, []string{pattern}) && !slices.Contains(named, name) {
				named = append(named, name)
			}
		}
	}
	rest := slices.DeleteFunc(slices.Clone(defaults), func(name string) bool { return slices.Contains(named, name) })
	switch sign {
	case '+':
		return append(slices.Clone(defaults), slices.DeleteFunc(named, func(name string) bool { return slices.Contains(defaults, name) })...)
	case '-':
		return rest
	case '^':
		return append(named, rest...)
	}
	return named
}

// matchesAny reports whether a name is one of several, of which each may end with "*".
func matchesAny(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, star := strings.CutSuffix(strings.TrimSpace(pattern), "*")
		return name == pattern || star && strings.HasPrefix(name, prefix)
	})
}
