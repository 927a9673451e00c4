package fleet

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/fleet/transport"
)

// lookup returns the options of ssh_config for a host. file is the one that the
// inventory names.
func (a *Access) lookup(ctx context.Context, file string, q sshconfig.Query) (sshconfig.Options, error) {
	q.File = file
	if a.Config != "" {
		q.File = a.Config
	}
	o, err := a.config.Lookup(ctx, q)
	if err != nil && ctx.Err() == nil {
		err = &localError{err}
	}
	return o, err
}

// fill sets unset settings to the values of ssh_config.
func (a *Access) fill(s *transport.Settings, o sshconfig.Options, name string) error {
	s.Address = cmp.Or(s.Address, o.Value("hostname"), name)
	s.User = cmp.Or(s.User, o.Value("user"))
	if s.Port == 0 {
		s.Port, _ = strconv.Atoi(o.Value("port")) // ssh has checked it
	}
	s.HostKeyAlias = cmp.Or(s.HostKeyAlias, strings.ToLower(o.Value("hostkeyalias")))
	t := tokens(s, name)
	files := func(keyword string) []string {
		var list []string
		for _, file := range o.Values(keyword) {
			if list = append(list, t.Replace(file)); file == "none" {
				return []string{}
			}
		}
		return list
	}
	s.Keys = transport.Keys{
		Identities: files("identityfile"), Certificates: files("certificatefile"),
		Only: isYes(o.Value("identitiesonly")), Agent: t.Replace(o.Value("identityagent")),
	}
	s.HostKeys.Hash = isYes(o.Value("hashknownhosts"))
	if revoked := o.Value("revokedhostkeys"); revoked != "none" {
		s.HostKeys.Revoked = t.Replace(revoked)
	}
	s.HostKeys.Files = knownHostsFiles(files("userknownhostsfile"), files("globalknownhostsfile"))
	if command := o.Value("proxycommand"); command != "none" && s.Via == nil {
		s.ProxyCommand = t.Replace(command)
	}
	// ssh has expanded the tokens of the path; without ssh there is no master.
	if path := o.Value("controlpath"); path != "none" && !strings.Contains(path, "%") {
		s.ControlPath = path
	}
	s.Network = map[string]string{"inet": "tcp4", "inet6": "tcp6"}[o.Value("addressfamily")]
	s.BindAddress = o.Value("bindaddress")
	for keyword, to := range map[string]*bool{
		"pubkeyauthentication": &s.NoPublicKey, "passwordauthentication": &s.NoPassword, "kbdinteractiveauthentication": &s.NoKeyboardInteractive,
	} {
		*to = o.Value(keyword) == "no" || o.Value(keyword) == "false"
	}
	s.Algorithms = transport.Algorithms{
		HostKeys: o.Value("hostkeyalgorithms"), KeyExchanges: o.Value("kexalgorithms"), Ciphers: o.Value("ciphers"), MACs: o.Value("macs"),
		PublicKeys: o.Value("pubkeyacceptedalgorithms"),
	}
	for keyword, to := range map[string]*time.Duration{"serveraliveinterval": &s.KeepAlive, "connecttimeout": &s.ConnectTimeout} {
		if *to == 0 {
			seconds, _ := strconv.Atoi(o.Value(keyword)) // 0 and none stay unset
			*to = time.Duration(seconds) * time.Second
		}
	}
	return a.note(o)
}

func isYes(value string) bool { return value == "yes" || value == "true" }

// knownHostsFiles returns the files of host keys, or nil for the default ones. New keys
// are added to the first, which is /dev/null if the user wants to keep none.
func knownHostsFiles(users, global []string) []string {
	if users == nil && global == nil {
		return nil
	}
	switch {
	case users == nil:
		users = []string{"~/.ssh/known_hosts"}
	case len(users) == 0:
		users = []string{os.DevNull}
	}
	if global == nil {
		global = []string{"/etc/ssh/ssh_known_hosts"}
	}
	return append(slices.Clone(users), global...)
}

// tokens returns a replacer for the tokens of ssh_config(5).
func tokens(s *transport.Settings, name string) *strings.Replacer {
	home, _ := os.UserHomeDir() // %d stays empty without
	machine, _ := os.Hostname()
	local := ""
	if u, err := user.Current(); err == nil {
		local = u.Username
	}
	short, _, _ := strings.Cut(machine, ".")
	port, remote := s.Port, s.User
	if port == 0 {
		port = 22
	}
	key := cmp.Or(s.HostKeyAlias, name)
	return strings.NewReplacer("%%", "%", "%h", s.Address, "%n", name, "%p", strconv.Itoa(port), "%r", remote, "%k", key,
		"%u", local, "%d", home, "%l", machine, "%L", short, "%i", strconv.Itoa(os.Getuid()))
}

// used are the keywords of ssh_config that vsfleet follows.
var used = []string{
	"hostname", "user", "port", "hostkeyalias", "identityfile", "certificatefile", "identitiesonly", "identityagent", "hashknownhosts",
	"revokedhostkeys", "userknownhostsfile", "globalknownhostsfile", "proxycommand", "proxyjump", "addressfamily", "bindaddress",
	"hostkeyalgorithms", "kexalgorithms", "ciphers", "macs", "pubkeyacceptedalgorithms", "serveraliveinterval", "connecttimeout",
	"stricthostkeychecking", "batchmode", "controlpath", "controlmaster", "pubkeyauthentication", "passwordauthentication", "kbdinteractiveauthentication",
}

// elsewhere are keywords that do not apply to vsfleet's connections: forwards,
// terminals, messages, actions after the login, and the lookup of names.
var elsewhere = []string{
	"addkeystoagent", "canonicaldomains", "canonicalizefallbacklocal", "canonicalizehostname", "canonicalizemaxdots",
	"canonicalizepermittedcnames", "clearallforwardings", "dynamicforward", "enableescapecommandline", "enablesshkeysign", "escapechar",
	"exitonforwardfailure", "fingerprinthash", "forkafterauthentication", "forwardagent", "forwardx11", "forwardx11timeout",
	"forwardx11trusted", "gatewayports", "gssapidelegatecredentials", "gssapirenewalforcesrekey", "gssapitrustdns", "gssapikexalgorithms",
	"ignoreunknown", "ipqos", "localcommand", "localforward", "loglevel", "logverbose", "permitlocalcommand", "permitremoteopen",
	"remotecommand", "remoteforward", "requesttty", "sendenv", "sessiontype", "setenv", "stdinnull", "streamlocalbindmask",
	"streamlocalbindunlink", "syslogfacility", "tag", "tunnel", "tunneldevice", "updatehostkeys", "versionaddendum", "visualhostkey",
	"xauthlocation", "controlpersist", "numberofpasswordprompts",
}

// refused are keywords that make a connection safer and that vsfleet does not support.
// Ignoring them would be less safe than the user asked for.
var refused = map[string]string{
	"proxyusefdpass": "yes",
}

// note records options of ssh_config that have no effect, for [Access.Notes].
func (a *Access) note(o sshconfig.Options) error {
	a.notesMu.Lock()
	defer a.notesMu.Unlock()
	add := func(text string) {
		if !slices.Contains(a.notes, text) {
			a.notes = append(a.notes, text)
		}
	}
	for _, text := range o.Skipped {
		add(text)
	}
	for _, keyword := range o.Keywords() {
		value := o.Value(keyword)
		switch {
		case refused[keyword] == value && value != "":
			return &localError{fmt.Errorf("ssh_config: %s %s: vsfleet does not support that; reach this host in another way, or set config: none", keyword, value)}
		case !slices.Contains(used, keyword) && !slices.Contains(elsewhere, keyword):
			add(fmt.Sprintf("ssh_config: %s %s: vsfleet has no such thing, and goes on without", keyword, value))
		}
	}
	return nil
}

// Notes returns the options of ssh_config that have no effect, sorted.
func (a *Access) Notes() []string {
	a.notesMu.Lock()
	defer a.notesMu.Unlock()
	return slices.Sorted(slices.Values(a.notes))
}
