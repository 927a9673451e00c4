package transport

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// admin makes a user with a password, who may do what sudoers and doas.conf say.
const admin = `useradd -M -d /tmp -s /bin/sh vsfadmin
echo "vsfadmin:correct horse" | chpasswd
echo 'Defaults lecture=always' >/etc/sudoers
rm -f /etc/doas.conf
`

// TestBecomeWithRealPrograms logs in as a user without rights at hosts with sudo and doas.
func TestBecomeWithRealPrograms(t *testing.T) {
	const right = "correct horse"
	binary := strings.Repeat("\x00\x03\x04\r\n\xff password: ", 1<<14)
	for _, row := range []struct {
		name, setup      string
		method, password string
		want             string // of an error
	}{
		{name: "sudo without a password", setup: "echo 'vsfadmin ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers"},
		{name: "sudo without a password, which is not sent", setup: "echo 'vsfadmin ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers", password: right},
		{name: "sudo with a password", setup: "echo 'vsfadmin ALL=(ALL) ALL' >>/etc/sudoers", password: right},
		{name: "sudo with a prompt of its own", setup: "printf 'Defaults !passprompt_override\nvsfadmin ALL=(ALL) ALL\n' >>/etc/sudoers", password: right},
		{name: "sudo that wants a terminal", setup: "printf 'Defaults requiretty\nvsfadmin ALL=(ALL) NOPASSWD: ALL\n' >>/etc/sudoers"},
		{name: "sudo that wants a terminal and a password", setup: "printf 'Defaults requiretty\nvsfadmin ALL=(ALL) ALL\n' >>/etc/sudoers", password: right},
		{name: "sudo on terminals of its own", setup: "printf 'Defaults use_pty, requiretty\nvsfadmin ALL=(ALL) ALL\n' >>/etc/sudoers", password: right},
		{name: "sudo with a path of its own", setup: "printf 'Defaults secure_path=/usr/bin:/bin\nvsfadmin ALL=(ALL) NOPASSWD: ALL\n' >>/etc/sudoers"},
		{name: "doas without a password", setup: "echo 'permit nopass vsfadmin' >/etc/doas.conf", method: Doas},
		{name: "doas without a password, which is not sent", setup: "echo 'permit nopass vsfadmin' >/etc/doas.conf", method: Doas, password: right},
		{name: "doas with a password", setup: "echo 'permit vsfadmin' >/etc/doas.conf", method: Doas, password: right},

		{name: "no password for sudo", setup: "echo 'vsfadmin ALL=(ALL) ALL' >>/etc/sudoers", want: "become root: sudo: a password is required (give the password with --ask-become-pass (-K)"},
		{name: "a wrong password for sudo", setup: "echo 'vsfadmin ALL=(ALL) ALL' >>/etc/sudoers", password: "wrong", want: "become root: the password is wrong"},
		{name: "a wrong password for sudo, which asks once", setup: "printf 'Defaults passwd_tries=1\nvsfadmin ALL=(ALL) ALL\n' >>/etc/sudoers", password: "wrong", want: "become root: the password is wrong"},
		{name: "a wrong password for sudo on a terminal", setup: "printf 'Defaults requiretty\nvsfadmin ALL=(ALL) ALL\n' >>/etc/sudoers", password: "wrong", want: "become root: the password is wrong"},
		{name: "nobody may", password: right, want: "vsfadmin is not in the sudoers file"},
		{name: "another command only", setup: "echo 'vsfadmin ALL=(ALL) NOPASSWD: /bin/true' >>/etc/sudoers", want: "become root: sudo: a password is required"},
		{name: "a wrong password for doas", setup: "echo 'permit vsfadmin' >/etc/doas.conf", method: Doas, password: "wrong", want: "become root: the password is wrong: doas: Authentication failed"},
		{name: "no password for doas", setup: "echo 'permit vsfadmin' >/etc/doas.conf", method: Doas, want: "give the password with --ask-become-pass (-K)"},
		{name: "doas that is not set up", method: Doas, password: right, want: "become root: doas: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := settings(sshtest.Start(t, sshtest.Options{Setup: admin + row.setup}))
			s.User, s.Become, s.BecomeMethod = "vsfadmin", true, row.method
			d := &Dialer{Agent: "none", BecomePassword: row.password}
			c, err := d.Dial(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 2 { // the second one may know more
				begun := time.Now()
				var out, errs bytes.Buffer
				exit, err := c.Exec(t.Context(), "id -u; tty; cat; echo error >&2; exit 7", strings.NewReader(binary), &out, &errs)
				if row.want != "" {
					if err == nil || !strings.Contains(err.Error(), row.want) || Unreachable(err) {
						t.Errorf("exit %d, error %v, stderr %q; want %q", exit, err, &errs, row.want)
					}
					if took := time.Since(begun); took > 8*time.Second {
						t.Errorf("it took %s", took)
					}
					return
				}
				if err != nil || exit != 7 || out.String() != "0\nnot a tty\n"+binary || errs.String() != "error\n" {
					t.Fatalf("exit %d, error %v, stdout %q, stderr %q", exit, err, out.String()[:min(out.Len(), 100)], &errs)
				}
			}
		})
	}
}

func TestBecome(t *testing.T) {
	const passes = `shift 2; exec "$@"`
	for _, row := range []struct {
		name       string
		sudo, doas string // a script; none: it is not there
		command    string
		exit       int
		out, err   string
	}{
		{name: "commands run through sudo", sudo: `[ "$1 $2" = "-n --" ] || exit 9; shift 2; BY=sudo exec "$@"`,
			command: `echo "by $BY, it's"`, out: "by sudo, it's\n"},
		{name: "or through doas, where that is what the host has", doas: `[ "$1" = "-n" ] || exit 9; shift; BY=doas exec "$@"`,
			command: `echo "by $BY, it's"`, out: "by doas, it's\n"},
		{name: "sudo is taken where both are", sudo: passes, doas: "exit 9", command: "echo ok", out: "ok\n"},
		{name: "an exit status passes through", sudo: passes, command: "exit 1", exit: 1},
		{name: "so does what a command says of itself", sudo: passes, command: "echo cannot read password >&2; exit 1", exit: 1},
		{name: "a password that sudo wants", sudo: `echo "sudo: a password is required" >&2; exit 1`,
			command: "true", exit: -1, err: "a password is required (give the password with --ask-become-pass (-K)"},
		{name: "a terminal that sudo wants", sudo: `echo "sudo: sorry, you must have a tty to run sudo" >&2; exit 1`,
			command: "true", exit: -1, err: "it takes script, of util-linux"},
		{name: "a user who may not", sudo: `echo "admin is not in the sudoers file." >&2; exit 1`,
			command: "true", exit: -1, err: "sudoers must let this user run anything: USER ALL=(ALL) ALL"},
		{name: "a sudo that is broken", sudo: `echo "sudo: /etc/sudo.conf is owned by uid 1000, should be 0" >&2; exit 1`,
			command: "true", exit: -1, err: "become root: sudo: /etc/sudo.conf is owned by uid 1000, should be 0"},
		{name: "a doas that refuses is not told about sudo", doas: `echo "doas: Operation not permitted" >&2; exit 1`,
			command: "true", exit: -1, err: "doas.conf must let this user run anything: permit nopass USER"},
		{name: "neither", command: "true", exit: -1, err: "neither sudo nor doas (or not the one of become_method): install it, or log in as root"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bin := t.TempDir() // nothing else is on the PATH
			if err := os.Symlink("/bin/sh", filepath.Join(bin, "sh")); err != nil {
				t.Fatal(err)
			}
			for name, script := range map[string]string{"sudo": row.sudo, "doas": row.doas} {
				if script == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s := settings(sshtest.Start(t, sshtest.Options{
				Login: `PATH=` + bin + `; export PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"`,
			}))
			s.Become = true
			var out bytes.Buffer
			exit, err := dial(t, s).Exec(t.Context(), row.command, nil, &out, nil)
			if exit != row.exit || out.String() != row.out {
				t.Errorf("exit %d, stdout %q", exit, &out)
			}
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("error %v, want %q", err, row.err)
			}
			if Unreachable(err) {
				t.Errorf("%v: the host was reached", err)
			}
		})
	}
}

// The end of doas's prompt may come after the first output of the command.
func TestTheEndOfAPromptIsNoOutput(t *testing.T) {
	b := becoming{password: "secret", number: "1"}
	for _, row := range []struct{ stderr, want string }{
		{"\rdoas (a@b) password: \r\n" + rootMark + "1\nerror\r\n", "error\r\n"},
		{"\rdoas (a@b) password: " + rootMark + "1\n\r\nerror\n", "error\n"},
		{"\rdoas (a@b) password: " + rootMark + "1\nerror\n\r\n", "error\n"},
		{rootMark + "1\nerror\r\n", "error\r\n"},
	} {
		var in, out bytes.Buffer
		prompt, rest, _ := strings.Cut(row.stderr, rootMark)
		r, err := b.await(io.MultiReader(strings.NewReader(prompt), strings.NewReader(rootMark+rest)), &in)
		if err == nil {
			_, err = out.ReadFrom(r)
		}
		if err != nil || out.String() != row.want {
			t.Errorf("%q: %q, %v; want %q", row.stderr, out.String(), err, row.want)
		}
	}
}

func TestHintsNameTheProgramThatRefused(t *testing.T) {
	for said, want := range map[string]string{"doas: Operation not permitted\n": "doas -n true", "sudo: a password is required\n": ""} {
		got := (&becomeError{said: said, number: "1"}).Hint()
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}
