package inventory

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ini loads an inventory in Ansible's INI with other files beside it.
func ini(t *testing.T, text string, sources ...string) (*Inventory, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, ".", "hosts", text)
	for i, more := range sources {
		sources[i] = "more" + string(rune('0'+i)) + ".yml"
		write(t, ".", sources[i], more)
	}
	return Load(append([]string{"hosts"}, sources...)...)
}

func warnings(inv *Inventory) string {
	var list []string
	for _, w := range inv.Warnings {
		list = append(list, w.Error())
	}
	return strings.Join(list, "\n")
}

func TestHowAnsibleConnects(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Host // its Address, Port, SSH and Become
		warnings   string
	}{
		{"everything", "h ansible_host=192.0.2.1 ansible_port=2222 ansible_user=u ansible_ssh_private_key_file=~/k ansible_become=yes ansible_become_method=doas ansible_become_user=root ansible_connection=ssh",
			Host{Address: "192.0.2.1", Port: 2222, SSH: SSH{User: "u", Identity: "~/k", Port: 2222, BecomeMethod: "doas"}, Become: true}, ""},
		{"a port behind the name", "h:2200", Host{Address: "h", Port: 2200, SSH: SSH{Port: 2200}}, ""},
		{"an older name wins over the newer one, as in Ansible", "h ansible_user=new ansible_ssh_user=old", Host{Address: "h", Port: 22, SSH: SSH{User: "old"}}, ""},
		{"arguments of ssh", `h ansible_ssh_common_args="-J gate -o StrictHostKeyChecking=accept-new -F none" ansible_ssh_extra_args="-p 2200"`,
			Host{Address: "h", Port: 2200, SSH: SSH{Jump: "gate", HostKey: "accept-new", Config: "none", Port: 2200}}, ""},
		{"a variable wins over arguments", `h ansible_user=u ansible_ssh_common_args="-l other"`, Host{Address: "h", Port: 22, SSH: SSH{User: "u"}}, ""},
		{"a host's arguments replace those of its group", "[g]\nh ansible_ssh_common_args='-C'\n[g:vars]\nansible_ssh_common_args=-J gate\n", Host{Address: "h", Port: 22}, ""},
		{"arguments of two variables", "[g]\nh\n[g:vars]\nansible_ssh_common_args=-J gate\n[all:vars]\nansible_ssh_extra_args=-o UserKnownHostsFile=kh\n", Host{Address: "h", Port: 22, SSH: SSH{Jump: "gate", KnownHosts: "kh"}}, ""},
		{"templates", "h ansible_host={{inventory_hostname}}.{{zone}} zone=\"{{z|default('lan')}}\" ansible_port={{p}} p=2200", Host{Address: "h.lan", Port: 2200, SSH: SSH{Port: 2200}}, ""},
		{"what has no meaning here", "h ansible_connection=winrm ansible_become_method=su ansible_become_user=app ansible_password=x ansible_become_pass=y ansible_foo=1 ansible_ssh_common_args=-A",
			Host{Address: "h", Port: 22}, `hosts:1:3: ansible_connection=winrm is not supported and has no effect
hosts:1:28: ansible_become_method=su is not supported and has no effect
hosts:1:53: ansible_become_user=app is not supported and has no effect
hosts:1:77: ansible_password is not supported and has no effect (passwords in inventories are not used)
hosts:1:96: ansible_become_pass is not supported and has no effect (passwords in inventories are not used)
hosts:1:118: ansible_foo is not supported and has no effect
hosts:1:132: -A of ansible_ssh_common_args is not supported and has no effect`},
		{"a slip", "h ansible_hots=192.0.2.1 ansible_ssh_common_args=-J", Host{Address: "h", Port: 22}, `hosts:1:3: ansible_hots is not supported and has no effect (did you mean "ansible_host"?)
hosts:1:26: -J without its argument of ansible_ssh_common_args is not supported and has no effect`},
		{"what only concerns Ansible", "h ansible_python_interpreter=/usr/bin/python3 ansible_ssh_pipelining=yes ansible_ssh_common_args='-o ControlMaster=auto'", Host{Address: "h", Port: 22}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			inv, err := ini(t, row.text)
			if err != nil {
				t.Fatal(err)
			}
			h := inv.Hosts[0]
			diff(t, Host{Address: h.Address, Port: h.Port, SSH: h.SSH, Become: h.Become}, row.want)
			if got := warnings(inv); got != row.warnings {
				t.Errorf("warnings:\n%s\nwant:\n%s", got, row.warnings)
			}
		})
	}
}

func TestOurFileAddsToHostsOfAnsible(t *testing.T) {
	inv, err := ini(t, "[web]\nweb1 ansible_host=192.0.2.1 x=ini\nweb2 ansible_user=ini\n[db]\ndb1\n[all:vars]\nansible_user=all\n", `
ssh: {user: top}
hosts:
  web1: {labels: {site: fra}, vars: {x: ours}}
  db1: {user: ours}
groups:
  web: {ssh: {identity: /k}, labels: {role: web}}
  new: {children: [web]}
images: {deb: {method: template, args: [-t, /srv/box.tar]}}
guests: {www: {on: "site=fra", image: deb, hostname: "${vars.x}"}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range inv.Hosts {
		got = append(got, strings.Join([]string{h.Name, h.Address, h.SSH.User, h.SSH.Identity, strings.Join(h.Groups, "+"), h.Labels["site"] + h.Labels["role"]}, " "))
	}
	diff(t, got, []string{"web1 192.0.2.1 top /k new+web fraweb", "web2 web2 ini /k new+web web", "db1 db1 ours  db "})
	if g := inv.mustHost(t, "web1").mustGuest(t, "www"); g.Hostname != "ours" {
		t.Errorf("its hostname is %s", g.Hostname)
	}
}

// What our own files may not say twice they may say beside Ansible's, and the other
// way round.
func TestStrictnessStaysWithOurFiles(t *testing.T) {
	for _, row := range []struct{ name, ini, ours, want string }{
		{"an unknown key", "a\n", "hosts: {a: {adress: x}}\n", `more0.yml:1:13: unknown key "adress" (did you mean "address"?)`},
		{"a group without hosts that Ansible has", "[g]\na\n", "groups: {g: {vars: {x: 1}}}\n", ""},
		{"a group without hosts that nobody has", "a\n", "groups: {g: {vars: {x: 1}}}\n", `more0.yml:1:10: group "g" has no hosts (give it hosts or children)`},
		{"a child that only Ansible has", "[g]\na\n", "groups: {top: {children: [g]}}\n", ""},
		{"a pattern that matches a host of Ansible's only", "[g]\na1\n", "groups: {x: {hosts: \"a*\"}}\n", ""},
		{"a variable that cannot be in a text", "a x=[1]\n", "images: {i: {method: template, args: [-t, /x]}}\nguests: {g: {on: a, image: i, hostname: \"${vars.x}\"}}\n",
			"more0.yml:2:42: ${vars.x} of host a is a list, which no text can hold (it is from hosts:1:3)"},
		{"a template that only Ansible can evaluate", "a x=\"{{ lookup('env', 'X') }}\"\n", "images: {i: {method: template, args: [-t, /x]}}\nguests: {g: {on: a, image: i, hostname: \"${vars.x}\"}}\n",
			"is a template of Jinja"},
		{"templates in a circle", "a x='{{y}}' y='{{x}}'\n", "images: {i: {method: template, args: [-t, /x]}}\nguests: {g: {on: a, image: i, hostname: \"${vars.x}\"}}\n",
			"needs more than 100 templates, or itself"},
		{"a password in a template", "a ansible_password=hunter2 x='{{ansible_password}}'\n", "images: {i: {method: template, args: [-t, /x]}}\nguests: {g: {on: a, image: i, hostname: \"${vars.x}\"}}\n",
			"variable ansible_password is secret"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := ini(t, row.ini, row.ours)
			if text := errorText(t, err); row.want == "" && text != "" || !strings.Contains(text, row.want) {
				t.Errorf("got %s, want %s", text, row.want)
			}
		})
	}
}

func TestWhatIsLeftOutIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"inv/hosts": "[web]\nweb1\n", "inv/old.ini": "[old]\nold1\n", "inv/group_vars/web.yml": "x: 1\n", "inv/group_vars/web.yaml": "x: 2\n", "inv/group_vars/wbe.yml": "x: 3\n",
		"inv/host_vars/web1.yml": "$ANSIBLE_VAULT;1.1;AES256\n3031\n", "inv/group_vars/elsewhere.yml": "x: 4\n", "inv/host_vars/web2.yml": "x: 5\n", "inv/same.yml": "same: {hosts: {same: , web1: {a: 1, a: 2}}, varz: {}}\n",
	} {
		write(t, ".", name, text)
	}
	for _, name := range []string{"inv/pipe", "inv/group_vars/all"} { // nobody writes to them
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := Load("inv")
	if err != nil {
		t.Fatal(err)
	}
	want := `inv/old.ini: it is left out, as Ansible leaves out .ini files of a directory (name it with -i, or give it another ending)
inv/group_vars/web.yaml: it is left out, as Ansible reads only inv/group_vars/web.yml of the two (put one into the other)
inv/pipe: it is left out, as it is not a file
inv/group_vars/wbe.yml: it is left out: there is no group "wbe" (did you mean "web"?)
inv/same.yml:1:1: group "same" has the name of the host at inv/same.yml:1:16 (as a pattern it means the group)
inv/same.yml:1:37: "a" is given twice: the last one wins, as in Ansible
inv/same.yml:1:45: group same: "varz" is left out, as in Ansible (a group has hosts, vars and children; groups in a group go below children)
inv/group_vars/all: it is left out, as it is not a file
inv/host_vars/web1.yml:1:1: it is encrypted by ansible-vault, so its variables are left out (decrypt it, or give what guests need elsewhere)`
	if got := warnings(inv); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestProgramsAreRunByTheCaller(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "hosts", "#!/bin/sh\n")
	if err := os.Chmod("hosts", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("hosts"); err == nil || err.Error() != "hosts: this is a program, which is not run here (save what it prints: hosts --list > hosts.json)" {
		t.Error(err)
	}
	var calls []string
	l := Loader{Run: func(path string, args ...string) ([]byte, error) {
		calls = append(calls, path+" "+strings.Join(args, " "))
		switch args[0] {
		case "--list":
			return []byte(`{"web": ["web1", "web2", "--help"]}`), nil
		}
		if args[1] == "web2" {
			return nil, errors.New("no such host")
		}
		return []byte(`{"x": 1}`), nil
	}}
	_, err := l.Load("hosts")
	want := "hosts --host web2: no such host\nhosts --list:1:26: host \"--help\" is no name: want a letter or digit, then up to 252 letters, digits, _ . -"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	diff(t, calls, []string{"hosts --list", "hosts --host web1", "hosts --host web2"})
}
