package ansible

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// SSHArgs is what arguments of ssh, as in ansible_ssh_common_args, mean. Unknown
// has those without a meaning here.
type SSHArgs struct {
	Jump, Identity, User, Port, KnownHosts, HostKeyAlias string

	HostKey string // "ask", "accept-new" or "strict"
	Config  string // an ssh_config file, or "none"
	Unknown []string
}

// template is {{ … }}, which may hold spaces.
var template = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// sshWithValue are the options of ssh(1) that have an argument.
const sshWithValue = "BbcDEeFIiJLlmOopQRSWw"

// sshHarmless are options that do not change which machine is reached, as whom and
// through what; vsfleet has its own way with each of them.
var sshHarmless = []string{
	"addkeystoagent", "batchmode", "checkhostip", "compression", "connectionattempts", "connecttimeout", "controlmaster", "controlpath",
	"controlpersist", "forwardx11", "gssapiauthentication", "identitiesonly", "kbdinteractiveauthentication", "loglevel", "passwordauthentication",
	"preferredauthentications", "pubkeyauthentication", "requesttty", "serveralivecountmax", "serveraliveinterval", "tcpkeepalive",
}

// hostKeys are the values of StrictHostKeyChecking that have a meaning here. There is
// none for those that take any key.
var hostKeys = map[string]string{"yes": "strict", "ask": "ask", "accept-new": "accept-new"}

// ParseSSHArgs reads arguments of ssh.
func ParseSSHArgs(s string) SSHArgs {
	var args SSHArgs
	words, err := sshWords(s)
	if err != nil {
		args.Unknown = []string{s}
		return args
	}
	for _, a := range options(words) {
		args.take(a)
	}
	return args
}

// sshWords splits arguments as a shell does, but no template.
func sshWords(s string) ([]string, error) {
	return SplitWords(template.ReplaceAllStringFunc(s, func(t string) string { return strings.ReplaceAll(t, " ", "") }), false)
}

// option is an option of ssh with its argument, or a word that is none.
type option struct {
	name  byte // 0: a word
	value string
}

func (o option) String() string {
	switch {
	case o.name == 0:
		return o.value
	case o.value == "":
		return "-" + string(o.name)
	}
	return "-" + string(o.name) + " " + o.value
}

// options splits words of a command line of ssh: "-vJ a" is -v and -J a.
func options(words []string) []option {
	var list []option
	for i := 0; i < len(words); i++ {
		word := words[i]
		if len(word) < 2 || word[0] != '-' {
			list = append(list, option{value: word})
			continue
		}
		for j := 1; j < len(word); j++ {
			o := option{name: word[j]}
			if strings.IndexByte(sshWithValue, o.name) >= 0 {
				if o.value = word[j+1:]; o.value == "" && i+1 < len(words) {
					i++
					o.value = words[i]
				}
				j = len(word)
			}
			list = append(list, o)
		}
	}
	return list
}

// assign splits "Name=value" and "Name value" as ssh -o takes them.
func assign(s string) (name, value string) {
	i := strings.IndexAny(s, "= \t")
	if i < 0 {
		return strings.ToLower(s), ""
	}
	return strings.ToLower(s[:i]), strings.Trim(s[i:], "= \t")
}

func (a *SSHArgs) take(o option) {
	if o.value == "" && o.name != 0 && strings.IndexByte(sshWithValue, o.name) >= 0 {
		a.Unknown = append(a.Unknown, o.String()+" without its argument")
		return
	}
	switch o.name {
	case 'J':
		a.Jump = o.value
	case 'i':
		a.Identity = o.value
	case 'l':
		a.User = o.value
	case 'p':
		a.Port = o.value
	case 'F':
		a.Config = o.value
	case 'o':
		a.set(o)
	case 'C', 'q', 'v', 'x', 'T', 't', '4', '6', 'a':
	default:
		a.Unknown = append(a.Unknown, o.String())
	}
}

// set takes -o Name=value.
func (a *SSHArgs) set(o option) {
	name, value := assign(o.value)
	switch {
	case value == "":
		a.Unknown = append(a.Unknown, o.String()+" without a value")
	case name == "proxyjump":
		a.Jump = value
	case name == "identityfile":
		a.Identity = value
	case name == "user":
		a.User = value
	case name == "port":
		a.Port = value
	case name == "hostkeyalias":
		a.HostKeyAlias = value
	case name == "userknownhostsfile" && value != "/dev/null" && !strings.Contains(value, " "):
		a.KnownHosts = value
	case name == "stricthostkeychecking" && hostKeys[value] != "":
		a.HostKey = hostKeys[value]
	case name == "forwardagent" && value == "no":
	case slices.Contains(sshHarmless, name):
	case name == "proxycommand":
		jump, unknown := parseProxyCommand(value)
		if a.Jump = jump; jump == "" {
			unknown = []string{o.String()}
		}
		a.Unknown = append(a.Unknown, unknown...)
	default:
		a.Unknown = append(a.Unknown, o.String())
	}
}

// parseProxyCommand returns the jump host of a command that only connects through
// one, "ssh -W %h:%p user@bastion" or "ssh bastion nc %h %p", or "" for any other.
func parseProxyCommand(command string) (jump string, unknown []string) {
	if command == "none" {
		return "none", nil
	}
	words, err := sshWords(command)
	if err != nil || len(words) == 0 || path.Base(words[0]) != "ssh" {
		return "", nil
	}
	var inner SSHArgs
	forwards := false
	var rest []string
	for _, o := range options(words[1:]) {
		switch {
		case o.name == 'W' && (o.value == "%h:%p" || o.value == "[%h]:%p"):
			forwards = true
		case o.name == 0:
			rest = append(rest, o.value)
		default:
			inner.take(o)
		}
	}
	if len(rest) > 1 {
		forwards = forwards || slices.Contains([]string{"nc", "netcat", "ncat"}, path.Base(rest[1]))
	}
	if !forwards || len(rest) == 0 {
		return "", nil
	}
	jump = rest[0]
	if inner.User != "" && !strings.Contains(jump, "@") {
		jump = inner.User + "@" + jump
	}
	if inner.Port != "" {
		jump += ":" + inner.Port
	}
	if inner.Jump != "" {
		jump = inner.Jump + "," + jump
	}
	if inner.Identity != "" {
		inner.Unknown = append(inner.Unknown, "-i "+inner.Identity)
	}
	for _, u := range inner.Unknown {
		unknown = append(unknown, u+" of ProxyCommand")
	}
	return jump, unknown
}
