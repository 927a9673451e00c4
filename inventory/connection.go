package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

// connection is what Ansible's variables say of how a host is reached, by the keys
// of ssh and "address". Values may hold templates.
type connection map[string]reaching

// reaching is one such value.
type reaching struct {
	name     string // of the variable
	value    any
	text     text
	fromArgs bool // it was among arguments of ssh, which replace each other as a whole
}

// connectionVars are the variables with a meaning for vsfleet. Of two for one key
// the later one wins, as in Ansible.
var connectionVars = []struct{ name, key string }{
	{"ansible_host", "address"}, {"ansible_ssh_host", "address"},
	{"ansible_port", "port"}, {"ansible_ssh_port", "port"},
	{"ansible_user", "user"}, {"ansible_ssh_user", "user"},
	{"ansible_private_key_file", "identity"}, {"ansible_ssh_private_key_file", "identity"},
	{"ansible_become", "become"}, {"ansible_become_method", "become_method"},
	{"ansible_ssh_common_args", "args"}, {"ansible_ssh_extra_args", "args"},
}

// harmlessVars are variables of Ansible that do not matter here: vsfleet runs no
// Python on hosts and has its own transport.
var harmlessVars = []string{
	"ansible_async_dir", "ansible_control_path", "ansible_control_path_dir", "ansible_group_priority", "ansible_pipelining", "ansible_remote_tmp",
	"ansible_scp_executable", "ansible_scp_extra_args", "ansible_scp_if_ssh", "ansible_sftp_batch_mode", "ansible_sftp_executable", "ansible_sftp_extra_args",
	"ansible_shell_executable", "ansible_shell_type", "ansible_ssh_executable", "ansible_ssh_pipelining", "ansible_ssh_retries", "ansible_ssh_timeout",
	"ansible_ssh_transfer_method", "ansible_timeout",
}

// agreeingVars are variables that ask for what vsfleet does anyway if they have one
// of these values.
var agreeingVars = map[string][]string{
	"ansible_connection":            {"ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh", "ansible.netcommon.libssh"},
	"ansible_become_user":           {"root"},
	"ansible_host_key_checking":     {"true"},
	"ansible_ssh_host_key_checking": {"true"},
}

// UnderstandsVar reports whether a variable of Ansible's says how hosts are reached, so
// that Host has what it says.
func UnderstandsVar(name string) bool {
	for _, known := range connectionVars {
		if known.name == name {
			return true
		}
	}
	return false
}

// connection returns what the variables of a layer say. It names those that it does
// not understand once for each layer.
func (b *builder) connection(l *layer) connection {
	if l.conn != nil || len(l.vars) == 0 {
		return l.conn
	}
	l.conn = connection{}
	for _, known := range connectionVars {
		v, ok := l.vars[known.name]
		switch {
		case !ok || v.Value == nil:
		case !v.IsScalar():
			b.Add(v.From, "", "%s: want a text, have %s", known.name, v.kind())
		case known.key == "become_method":
			method := v.Text[strings.LastIndexByte(v.Text, '.')+1:] // of ansible.builtin.sudo
			if method != "sudo" && method != "doas" {
				b.ununderstood(known.name+"="+yamlpos.Short(v.Text), v.From)
				continue
			}
			l.conn[known.key] = reaching{name: known.name, value: method, text: text{Value: method, Pos: v.From}}
		case known.key == "args":
			b.sshArgs(l.conn, known.name, v)
		default:
			l.conn[known.key] = reaching{name: known.name, value: v.Value, text: text{Value: v.Text, Pos: v.From}}
		}
	}
	for name, v := range l.vars {
		if strings.HasPrefix(name, "ansible_") {
			b.nameUnknown(name, v)
		}
	}
	return l.conn
}

// sshArgs adds what arguments of ssh mean.
func (b *builder) sshArgs(c connection, name string, v Var) {
	args := ansible.ParseSSHArgs(v.Text)
	c["args"] = reaching{name: name}
	for key, value := range map[string]string{
		"jump": args.Jump, "identity": args.Identity, "user": args.User, "port": args.Port, "known_hosts": args.KnownHosts, "host_key_alias": args.HostKeyAlias, "host_key": args.HostKey, "config": args.Config,
	} {
		if _, own := c[key]; value != "" && !own {
			c[key] = reaching{name: name, value: value, text: text{Value: value, Pos: v.From}, fromArgs: true}
		}
	}
	for _, unknown := range args.Unknown {
		b.ununderstood(fmt.Sprintf("%s of %s", yamlpos.Short(unknown), name), v.From)
	}
}

// nameUnknown notes a variable of Ansible's that has no meaning here.
func (b *builder) nameUnknown(name string, v Var) {
	if UnderstandsVar(name) || slices.Contains(harmlessVars, name) || strings.HasSuffix(name, "_interpreter") || v.Value == nil {
		return
	}
	if text, ok := agreeingVars[name]; ok && slices.Contains(text, strings.ToLower(v.Text)) {
		return
	}
	if _, known := agreeingVars[name]; known {
		name += "=" + yamlpos.Short(v.Text)
	}
	b.ununderstood(name, v.From)
}

func (b *builder) ununderstood(what string, pos Position) {
	if b.unknown == nil {
		b.unknown = map[string][]Position{}
	}
	b.unknown[what] = append(b.unknown[what], pos)
}

// warnConnections names what was not understood, each once with its first place.
func (b *builder) warnConnections() {
	for _, what := range sortedKeys(b.unknown) {
		places := slices.Compact(slices.SortedFunc(slices.Values(b.unknown[what]), comparePlaces))
		more := ""
		if len(places) > 1 {
			more = fmt.Sprintf(", and in %d more places", len(places)-1)
		}
		hint := ""
		if name, _, _ := strings.Cut(what, " "); isPassword(name) {
			hint = "passwords in inventories are not used"
		}
		b.Warn(places[0], hint, "%s is not understood: hosts are reached without it%s", what, more)
	}
}

func comparePlaces(x, y Position) int {
	return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
}

// over takes over what o has. Arguments of ssh replace all that came from others.
func (c connection) over(o connection) {
	if _, args := o["args"]; args {
		maps.DeleteFunc(c, func(_ string, r reaching) bool { return r.fromArgs })
	}
	maps.Copy(c, o)
}

// without removes what a block of ssh settings in the same place gives.
func (c connection) without(s *sshSpec) {
	for key, given := range map[string]bool{
		"user": s.user.OK(), "identity": s.identity.OK(), "jump": s.jump.OK(), "known_hosts": s.knownHosts.OK(),
		"host_key_alias": s.hostKeyAlias.OK(), "port": s.port.OK(), "become": s.become.OK(),
		"become_method": s.becomeMethod.OK(), "host_key": s.hostKey.OK(), "config": s.config.OK(),
	} {
		if given {
			delete(c, key)
		}
	}
}

// apply brings what Ansible's variables say into the SSH settings of a host.
func (b *builder) apply(c connection, h *Host, own *hostSpec, s *sshSpec) (address text) {
	address = own.address
	if address.OK() {
		address.Value = h.Address // one of its range
	}
	for key, r := range c {
		if r.fromArgs && r.text.Value == "" || key == "args" {
			continue
		}
		value := r.text.Value
		if isTemplate(value) {
			var err *Error
			if value, err = (scope{host: h}).template(value); err != nil {
				b.Failed(r.text.Pos, &Error{Msg: r.name + ": " + err.Msg + " on host " + h.Name, Hint: err.Hint})
				continue
			}
		}
		t := text{Value: value, Pos: r.text.Pos}
		if key != "become" && key != "port" && !isArgument(value) {
			b.Once(t.Pos, "", "%s: want one word that does not begin with -, have %q", r.name, yamlpos.Short(value))
			continue
		}
		switch key {
		case "address":
			if !address.OK() {
				address = t
			}
		case "user":
			s.user = t
		case "identity":
			s.identity = t
		case "jump":
			s.jump = t
		case "known_hosts":
			s.knownHosts = t
		case "host_key_alias":
			s.hostKeyAlias = t
		case "host_key":
			s.hostKey = t
		case "config":
			s.config = t
		case "become_method":
			s.becomeMethod = t
		case "port":
			n, err := setting.WholeNumber(value, 1, 65535)
			if err != nil {
				b.Once(t.Pos, "", "%s: %v", r.name, err)
				continue
			}
			s.port = given[int]{Value: int(n), Pos: t.Pos}
		case "become":
			is, ok := truth(r.value, value)
			if !ok {
				b.Once(t.Pos, "", "%s: want true or false, have %q", r.name, yamlpos.Short(value))
				continue
			}
			s.become = given[bool]{Value: is, Pos: t.Pos}
		}
	}
	return address
}

// truth reads a boolean as Ansible does.
func truth(value any, text string) (is, ok bool) {
	if is, ok = value.(bool); ok {
		return is, true
	}
	switch strings.ToLower(text) {
	case "yes", "true", "on", "y", "t", "1":
		return true, true
	case "no", "false", "off", "n", "f", "0":
		return false, true
	}
	return false, false
}
