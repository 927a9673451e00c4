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

// connection holds the values of Ansible's variables that define how a host is reached,
// by the keys of ssh and "address". Values may hold templates. Variables with arguments
// of ssh are also present under their own names.
type connection map[string]reaching

// reaching is one such value.
type reaching struct {
	name     string // of the variable
	value    any
	text     text
	fromArgs bool // given by arguments of ssh, which replace those of the same variable as a whole
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

// harmlessVars are variables of Ansible that do not apply: vsfleet runs no Python on
// hosts and has its own transport.
var harmlessVars = []string{
	"ansible_async_dir", "ansible_control_path", "ansible_control_path_dir", "ansible_group_priority", "ansible_pipelining", "ansible_remote_tmp",
	"ansible_scp_executable", "ansible_scp_extra_args", "ansible_scp_if_ssh", "ansible_sftp_batch_mode", "ansible_sftp_executable", "ansible_sftp_extra_args",
	"ansible_shell_executable", "ansible_shell_type", "ansible_ssh_executable", "ansible_ssh_pipelining", "ansible_ssh_retries", "ansible_ssh_timeout",
	"ansible_ssh_transfer_method", "ansible_timeout",
}

// agreeingVars are variables that need no warning if they have one of these values,
// because vsfleet does the same.
var agreeingVars = map[string][]string{
	"ansible_connection":            {"ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh", "ansible.netcommon.libssh"},
	"ansible_become_user":           {"root"},
	"ansible_host_key_checking":     {"true"},
	"ansible_ssh_host_key_checking": {"true"},
}

// UnderstandsVar reports whether an Ansible variable defines how a host is reached, and
// is therefore part of Host.
func UnderstandsVar(name string) bool {
	for _, known := range connectionVars {
		if known.name == name {
			return true
		}
	}
	return false
}

// connection returns the connection that the variables of a layer define. It reports
// variables that it does not understand once for each layer.
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

// sshArgs adds the settings that arguments of ssh give.
func (b *builder) sshArgs(c connection, name string, v Var) {
	args := ansible.ParseSSHArgs(v.Text)
	c[name] = reaching{name: name}
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

// nameUnknown records an Ansible variable that vsfleet does not understand.
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

// warnConnections warns of everything that was not understood, once each, with its
// first position.
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
		} else {
			hint = didYouMeanVar(name)
		}
		b.Warn(places[0], hint, "%s is not supported and has no effect%s", what, more)
	}
}

// didYouMeanVar returns a hint at the variable with a meaning for vsfleet that name may be a
// slip of, or "".
func didYouMeanVar(name string) string {
	const prefix = "ansible_" // all begin with it, which would make any two near each other
	word, ok := strings.CutPrefix(name, prefix)
	if !ok || strings.Contains(word, "=") {
		return ""
	}
	var known []string
	for _, v := range connectionVars {
		known = append(known, strings.TrimPrefix(v.name, prefix))
	}
	return strings.Replace(yamlpos.DidYouMean(word, known), `"`, `"`+prefix, 1)
}

func comparePlaces(x, y Position) int {
	return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
}

// over overrides c with o. Arguments of ssh replace all earlier ones of the same
// variable.
func (c connection) over(o connection) {
	maps.DeleteFunc(c, func(_ string, r reaching) bool {
		_, replaced := o[r.name]
		return r.fromArgs && replaced
	})
	maps.Copy(c, o)
}

// without removes the values that a block of ssh settings in the same place gives.
func (c connection) without(s *sshSpec) {
	for key := range c {
		to := s.text(key)
		if to != nil && to.OK() || key == "port" && s.port.OK() || key == "become" && s.become.OK() {
			delete(c, key)
		}
	}
}

// apply puts the values of Ansible's variables into the SSH settings of a host, and
// returns its address.
func (b *builder) apply(c connection, h *Host, own *hostSpec, s *sshSpec) (address text) {
	address = own.address
	if address.OK() {
		address.Value = h.Address // one of its range
	}
	for key, r := range c {
		if UnderstandsVar(key) { // arguments of ssh, which are there by their meaning
			continue
		}
		t, err := r.evaluate(h)
		switch key {
		case "port":
			s.port.Pos = t.Pos
			if err == nil {
				var n int64
				n, err = wholeNumber(t.Value)
				s.port.Value = int(n)
			}
		case "become":
			s.become.Pos = t.Pos
			if err == nil {
				s.become.Value, err = truth(r.value, t.Value)
			}
		default:
			if err == nil && !isArgument(t.Value) {
				err = &Error{Msg: fmt.Sprintf("want one word that does not begin with -, have %q", yamlpos.Short(t.Value))}
			}
			to := s.text(key)
			if key == "address" {
				to = &address
			}
			if err == nil && (key != "address" || !address.OK()) {
				*to = t
			}
		}
		if err != nil {
			b.Once(t.Pos, err.Hint, "%s: %s", r.name, err.Msg)
		}
	}
	return address
}

// evaluate returns the value for a host, with its templates replaced.
func (r reaching) evaluate(h *Host) (text, *Error) {
	t := r.text
	if !isTemplate(t.Value) {
		return t, nil
	}
	value, err := scope{host: h}.template(t.Value)
	if err != nil {
		return t, &Error{Msg: err.Msg + " on host " + h.Name, Hint: err.Hint}
	}
	t.Value = value
	return t, nil
}

func wholeNumber(s string) (int64, *Error) {
	n, err := setting.WholeNumber(s, 1, 65535)
	if err != nil {
		return 0, &Error{Msg: err.Error()}
	}
	return n, nil
}

// truth reads a boolean as Ansible does.
func truth(value any, text string) (bool, *Error) {
	if is, ok := value.(bool); ok {
		return is, nil
	}
	switch strings.ToLower(text) {
	case "yes", "true", "on", "y", "t", "1":
		return true, nil
	case "no", "false", "off", "n", "f", "0":
		return false, nil
	}
	return false, &Error{Msg: fmt.Sprintf("want true or false, have %q", yamlpos.Short(text))}
}
