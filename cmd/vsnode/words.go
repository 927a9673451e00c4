package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/buildmethod"
)

// A word is a verb or an option of vserver, or the name of another tool of
// Linux-VServer's. The table makes the help and docs/linux-vserver.md, and is asked
// before anything runs.
type word struct {
	of      string // "": vserver itself; the verb that the option is of; "tools"; "methods"
	name    string
	args    string // as the help shows them
	what    string // what it does; of a refused word: why it is refused
	instead string // what to use instead; not empty: the word is refused
}

// What words are of that are neither verbs nor options.
const (
	tools   = "tools"   // names of programs
	methods = "methods" // of build
)

const (
	noScripts = "there are no scripts to trace"
	unified   = "files are shared whatever their owners, modes and times, and with all guests"
	ofMethod  = "belongs to the method"
	noContext = "contexts are made of namespaces and a cgroup when a guest starts, and a process alone has none"
)

// words are all verbs and options of util-vserver, and ours.
var words = []word{
	{"", "-s", "", "start returns when the guest is ready; stop always waits (also --sync)", ""},
	{"", "-v", "", "report also what went well (also --verbose)", ""},
	{"", "--silent", "", "print no messages, and delete without asking", ""},
	{"", "--defaulttty", "", "use the terminal of apps/init/tty, of the guest or .defaults, else /dev/null, as standard streams", ""},
	{"", "--help", "", "show this help (also -h)", ""},
	{"", "--version", "", "show the version", ""},
	{"", "--debug", "", noScripts, "vserver NAME status and vserver NAME log say what happened"},
	{"", "--debug-sysv", "", noScripts, "vserver NAME log shows what the guest's own scripts print"},
	{"", "--strace", "", "the trace would go on for as long as the guest runs", "strace -o FILE vserver NAME start traces vsnode alone; with -f also the guest, until it stops"},
	{"", "----nonamespace", "", "every guest has its own mounts", "leave it out"},
	{"", "----insecure", "", "nothing runs in a guest that does not run", "vserver NAME start --rescue, then exec or suexec"},

	{"", "list", "[--json]", "show guests, running or stopped, and what is wrong with them (vserver list: all)", ""},
	{"", "build", "-m METHOD OPTIONS [-- METHOD'S ARGUMENTS]", "make a guest", ""},
	{"", "start", "[--sync] [--rescue [COMMAND…]]", "start it; with --rescue run COMMAND in place of its init, by default /bin/sleep 900", ""},
	{"", "stop", "", "stop it", ""},
	{"", "restart", "", "stop it and start it", ""},
	{"", "condrestart", "", "restart it if it runs", ""},
	{"", "enter", "[-u USER] [-w DIR] [-e K=V] [-t|-T]", "open a shell in it", ""},
	{"", "exec", "[-u USER] [-w DIR] [-e K=V] [-t|-T] COMMAND…", "run a command in it", ""},
	{"", "suexec", "USER COMMAND…", "run a command in it as a user", ""},
	{"", "log", "[-n LINES] [-f]", "show what it wrote to its console; -f follows", ""},
	{"", "limits", "", "show what it uses of its limits: current, peak, soft, hard, hits", ""},
	{"", "status", "", "show whether it runs (0) or is stopped (3)", ""},
	{"", "running", "", "the same without output: 0 or 1", ""},
	{"", "revert", "[RUN]", "undo what vsfleet's last run changed, or all runs since RUN", ""},
	{"", "adopt", "[--dry-run]", "show what will change of a guest of util-vserver's, ask, and take it over; the old configuration is kept", ""},
	{"", "delete", "[--yes]", "ask, stop it and remove all of it", ""},
	{"", "pkg", "install PACKAGE… | get-conffiles", "install packages by its own package manager, or list their configuration files", ""},
	{"", "chkconfig", "ARGUMENTS", "run the program of that name in it", ""},
	{"", "apt-get", "ARGUMENTS", "likewise", ""},
	{"", "apt-config", "ARGUMENTS", "likewise", ""},
	{"", "apt-cache", "ARGUMENTS", "likewise", ""},
	{"", "rpm", "ARGUMENTS", "likewise", ""},
	{"", "hashify", "[-n]", "keep files of it that others have too once, without any change that it sees; -n only shows what that wins", ""},
	{"", "unify", "", unified, "vserver NAME hashify"},
	{"", "pkgmgmt", "", "a guest's package manager and its data are in the guest", "vserver NAME pkg install, or vserver NAME exec apt-get …"},

	{"start", "--sync", "", "return when it is ready (also -s)", ""},
	{"start", "--rescue", "[COMMAND…]", "run COMMAND in place of the guest's init, by default /bin/sleep 900", ""},
	{"start", "--rescue-init", "", "with --rescue: COMMAND is process 1 itself", ""},
	{"start", "--rescue-cmd", "COMMAND", "the command of --rescue, as it was written before", ""},
	{"stop", "--rescue-init", "", "nothing more: a rescue is stopped as any guest", ""},

	{"exec", "-u", "USER", "be this user of the guest, by name or number, with its home", ""},
	{"exec", "-w", "DIR", "begin in this directory of the guest", ""},
	{"exec", "-e", "NAME=VALUE", "repeatable: set a variable of the environment", ""},
	{"exec", "-t", "", "give it a terminal, whatever vserver's own input and output are", ""},
	{"exec", "-T", "", "give it no terminal", ""},
	{"hashify", "-n", "", "change nothing, and show what would be won (also --dry-run)", ""},
	{"hashify", "-v", "", "nothing more: what is won is always shown", ""},
	{"log", "-n", "LINES", "how many lines; else 100", ""},
	{"log", "-f", "", "follow what it writes, across stops and starts", ""},
	{"list", "--json", "", "print all that is known of them, as JSON", ""},
	{"vserver-stat", "-a", "", "it shows what runs", "vserver list, which has stopped guests too"},

	{"delete", "--yes", "", "do not ask", ""},
	{"adopt", "--dry-run", "", "show what would change", ""},
	{"adopt", "--yes", "", "do not ask", ""},
	{"adopt", "--port", "PORT[/PROTO]", "repeatable: ports that it may bind on shared addresses (nodev)", ""},
	{"adopt", "--keep-owners", "", "leave files whose owners no guest has", ""},

	{"build", "-m", "METHOD", "how it is made: a method of those below, with its arguments behind --", ""},
	{"build", "-n", "NAME", "the guest's name again, as util-vserver passes it on", ""},
	{"build", "--context", "N", "2 to 49151; else the first free one from 28672", ""},
	{"build", "--hostname", "NAME", "its hostname; else its name", ""},
	{"build", "--interface", "[NAME=][DEV:]ADDRESS[/PREFIX|/MASK]", "repeatable; DEV \"nodev\": an address of the host's", ""},
	{"build", "--netdev", "DEV", "for interfaces without a device", ""},
	{"build", "--netmask", "MASK", "for interfaces without a prefix", ""},
	{"build", "--netprefix", "PREFIX", "likewise", ""},
	{"build", "--port", "PORT[/PROTO]", "repeatable: ports that the guest owns on a shared address", ""},
	{"build", "--nat", "", "a private network behind the host instead of an interface", ""},
	{"build", "--forward", "HOST:GUEST[/PROTO]", "repeatable, with --nat: a port of the host that leads inside", ""},
	{"build", "--initstyle", "STYLE", "plain (the guest's own /sbin/init), sysv or openrc", ""},
	{"build", "--initcommand", "ARG", "repeatable: process 1 and its arguments instead", ""},
	{"build", "--force", "", "a stopped guest of that name is set aside, renamed NAME.~TIME~", ""},
	{"build", "--keep", "", "what a failed build made is removed", "the last lines of its output are in the error"},
	{"build", "--i-know-its-there", "", "a guest's directory is made anew", "--force sets an old guest aside"},
	{"build", "--rootdir", "DIR", "guests lie below /var/lib/vservers", "make that a link or a mount to have them elsewhere"},
	{"build", "--pkgbase", "DIR", "packages are managed in the guest", "leave it out"},
	{"build", "--confdir", "DIR", "configurations lie below /etc/vservers", "leave it out"},
	{"build", "--lockfile", "FILE", "/etc/vservers/NAME/run leads to /run/vservers/NAME", "leave it out"},
	{"build", "--netbcast", "ADDRESS", "the broadcast address follows from the prefix", "--netprefix or --netmask"},
	{"build", "--flags", "FLAGS", "what flags protected is always on", "docs/configuration.md has the others"},
	{"build", "--cpuset", "NAME", "a guest's cpuset is its cgroup", "cgroup/cpuset.cpus of the configuration"},
	{"build", "--cpusetcpus", "CPUS", "a guest's cpuset is its cgroup", "write it into cgroup/cpuset.cpus of the configuration after the build"},
	{"build", "--cpusetmems", "NODES", "a guest's cpuset is its cgroup", "write it into cgroup/cpuset.mems of the configuration after the build"},
	{"build", "--cpusetvirt", "", "it is a setting", "write lxcfs into views of the configuration after the build"},
	{"build", "--debug", "", noScripts, "a build prints what it does"},
	{"build", "-d", "DIST", ofMethod, "write it behind --, as in -m debootstrap -- -d bookworm"},
	{"build", "-t", "ARCHIVE", ofMethod, "write it behind --, as in -m template -- -t FILE"},
	{"build", "-s", "SCRIPT", ofMethod, "write it behind --"},
	{"build", "-o", "OPTION", ofMethod, "write it behind --"},
	{"build", "--template", "ARCHIVE", ofMethod, "write it behind --, as in -m template -- -t FILE"},
	{"build", "--source", "GUEST", ofMethod, "write it behind --, as in -m clone -- -s GUEST"},

	{tools, "vserver-stat", "[--json]", "show what the host and its guests use", ""},
	{tools, "vserver-info", "[-q] NAME|PID|CONTEXT|- [TAG] | -l", "show one fact of a guest, as scripts read it; -l lists the tags", ""},
	{tools, "start-vservers", "[-m MARK] [-j N] [--start|--stop] [--all|--marked|--unmarked|--running|--stopped] [NAME…]", "start guests in the order of apps/init/depends", ""},
	{tools, "stop-vservers", "likewise", "stop guests in the reverse order", ""},
	{tools, "vps", "OPTIONS OF ps", "run ps and show the context and guest of each process", ""},
	{tools, "vtop", "OPTIONS OF top", "top, which shows the processes of guests as well", ""},
	{tools, "vpstree", "OPTIONS OF pstree", "pstree, likewise", ""},
	{tools, "vkill", "[-c CONTEXT|NAME] [-s SIGNAL|-SIGNAL] [PID…]", "send a signal to processes of a guest, to all of them without PID", ""},
	{tools, "vuname", "-g|-s --xid CONTEXT|NAME [TAG…]", "show, or of a running guest set, its hostname and the like", ""},
	{tools, "vlimit", "-c CONTEXT|NAME [-S|-H] [--nproc N] [--rss PAGES] [--swap PAGES]", "show what a running guest uses of its limits; or set them, until its next start or apply", ""},
	{tools, "vapt-get", "NAME…|--all -- ARGUMENTS", "run apt-get in guests", ""},
	{tools, "vrpm", "NAME…|--all -- ARGUMENTS", "run rpm in guests", ""},
	{tools, "vyum", "NAME…|--all -- ARGUMENTS", "run yum in guests", ""},
	{tools, "chbind", "", "a network context belongs to a guest's cgroup, which the host's processes are not in", "the program's own setting (ListenAddress, Listen, bind); vsnode check names listeners on all addresses"},
	{tools, "chcontext", "", noContext, "vserver NAME exec COMMAND; or a guest whose process 1 is the command (vserver NAME build --initcommand)"},
	{tools, "vcontext", "", noContext, "vserver NAME exec COMMAND"},
	{tools, "ncontext", "", noContext, "vserver NAME exec COMMAND"},
	{tools, "vspace", "", noContext, "nsenter -a -t PID, or vserver NAME exec COMMAND"},
	{tools, "vnamespace", "", noContext, "nsenter -m -t PID, or vserver NAME exec COMMAND"},
	{tools, "vattribute", "", "capabilities and flags hold from the start of a guest", "bcapabilities in /etc/vservers/NAME, then vserver NAME restart"},
	{tools, "nattribute", "", "what flags of the network protected is always on", "docs/networks.md"},
	{tools, "naddress", "", "addresses of a guest are in its configuration", "interfaces/ in /etc/vservers/NAME, or vsfleet apply"},
	{tools, "vtag", "", "files have no tags: on disk an owner is the guest's own id", "ls -l"},
	{tools, "lsxid", "", "files have no tags: on disk an owner is the guest's own id", "ls -l"},
	{tools, "chxid", "", "files have no tags: on disk an owner is the guest's own id", "chown"},
	{tools, "showattr", "", "there is no barrier: a guest's root is entered by pivot_root", "lsattr"},
	{tools, "setattr", "", "there is no barrier: a guest's root is entered by pivot_root", "chattr"},
	{tools, "vsched", "", "there are no token buckets", "cgroup/cpu.max and cgroup/cpu.weight"},
	{tools, "vmemctrl", "", "the badness of a guest is in its configuration", "badness in /etc/vservers/NAME, or cgroup/memory.low"},
	{tools, "vsysctl", "", "sysctls of a guest are in its configuration", "sysctl/ in /etc/vservers/NAME, or sysctl in the guest"},
	{tools, "vdlimit", "", "disk limits of a guest are in its configuration", "dlimits/ in /etc/vservers/NAME, or limits of the inventory"},
	{tools, "vdevmap", "", "devices of a guest are in its configuration", "apps/vdevmap/ in /etc/vservers/NAME, or devices of the inventory"},
	{tools, "vrsetup", "", "quota tools need no block device in a guest", "dlimits/ in /etc/vservers/NAME"},
	{tools, "vdu", "", "files have no tags", "du -s /var/lib/vservers/NAME"},
	{tools, "vwait", "", "a stop waits itself", "vserver NAME stop, vserver NAME running"},
	{tools, "vlogin", "", "enter always gives a terminal of the guest's own", "vserver NAME enter"},
	{tools, "vmount", "", "mounts of a guest are in its configuration", "fstab in /etc/vservers/NAME"},
	{tools, "vunify", "", unified, "vserver NAME hashify"},
	{tools, "vhashify", "", "it is a command of vserver", "vserver NAME hashify"},
	{tools, "vclone", "", "guests of one image share its files", "vserver NAME build -m clone -- -s GUEST"},
	{tools, "vserver-copy", "", "a host knows no other host", "rsync of /var/lib/vservers/NAME and /etc/vservers/NAME while the guest is stopped"},
	{tools, "vprocunhide", "", "what a guest sees of /proc is set up by its start", "leave it out"},
	{tools, "vshelper", "", "no helper of the kernel's: reboot(2) in a guest ends its process 1", "docs/guests.md"},
	{tools, "vemerge", "", "Gentoo's tools are run in the guest", "vserver NAME exec emerge …"},
}

// wordsWith returns the table that has the words of that kind.
func wordsWith(of string) []word {
	if of == methods {
		return methodWords()
	}
	return words
}

// methodWords are the methods of build.
func methodWords() (list []word) {
	for _, m := range buildmethod.Table {
		list = append(list, word{methods, m.Name, m.Args, m.Does, ""})
	}
	for _, r := range buildmethod.Refused {
		list = append(list, word{methods, r.Name, "", r.Why, r.Instead})
	}
	return list
}

// wordOf returns the word of that name; "" is vserver itself.
func wordOf(of, name string) (word, bool) {
	list := wordsWith(of)
	i := slices.IndexFunc(list, func(w word) bool { return w.of == of && w.name == name })
	if i < 0 {
		return word{}, false
	}
	return list[i], true
}

// likewise is the text of a word, or the arguments, that are those of the word before it.
const likewise = "likewise"

// help is what a word's own --help prints.
func (w word) help() string {
	list := wordsWith(w.of)
	for i := slices.Index(list, w); i > 0 && (w.what == likewise || w.args == likewise); i-- {
		if w.what == likewise {
			w.what = list[i-1].what
		}
		if w.args == likewise {
			w.args = list[i-1].args
		}
	}
	return strings.TrimSpace(w.name+" "+w.args) + "\n\n" + strings.ToUpper(w.what[:1]) + w.what[1:] + ".\n"
}

// verbHelp returns the help of a verb of vserver.
func verbHelp(verb string) string {
	var b strings.Builder
	w, _ := wordOf("", verb)
	b.WriteString("vserver NAME " + w.help())
	of := verb
	if verb == "enter" {
		of = "exec"
	}
	if len(namesOf(of)) > 0 {
		b.WriteString("\nOptions:\n\n")
		writeWords(&b, of, anyWord)
	}
	if verb == "build" {
		b.WriteString("\nMethods:\n\n")
		writeWords(&b, methods, anyWord)
		b.WriteString("\nOther options of util-vserver are refused, each with what to do instead.\n")
	}
	return b.String()
}

// wantsHelp reports whether the arguments of a verb ask for its help. Programs that
// vserver passes arguments on to have helps of their own.
func wantsHelp(verb string, args []string) bool {
	if w, _ := wordOf("", verb); w.args == "ARGUMENTS" {
		return false
	}
	for _, arg := range args {
		if arg == "--help" || arg == "-h" {
			return true
		}
		if arg == "--" || !strings.HasPrefix(arg, "-") {
			return false
		}
	}
	return false
}

// refusal is the text for a word that is refused; "" if it is not or is unknown.
func refusal(of, name string) string {
	w, _ := wordOf(of, name)
	if w.instead == "" {
		return ""
	}
	return w.what + "; instead: " + w.instead
}

// namesOf returns the names of words that are not refused.
func namesOf(of string) (names []string) {
	for _, w := range wordsWith(of) {
		if w.of == of && w.instead == "" {
			names = append(names, w.name)
		}
	}
	return names
}

// writeWords writes those of a kind that are not refused, for a help.
func writeWords(out io.Writer, of string, wanted func(word) bool) {
	for _, w := range wordsWith(of) {
		if w.of != of || w.instead != "" || !wanted(w) {
			continue
		}
		left := strings.TrimSpace(w.name + " " + w.args)
		if len(left) > 22 {
			fmt.Fprintf(out, "  %s\n", left)
			left = ""
		}
		for line := range strings.SplitSeq(w.what, "\n") {
			fmt.Fprintf(out, "  %-22s  %s\n", left, line)
			left = ""
		}
	}
}

func isOption(w word) bool { return strings.HasPrefix(w.name, "-") }
func isVerb(w word) bool   { return !isOption(w) }

func anyWord(word) bool { return true }

func vserverHelp(out io.Writer) {
	io.WriteString(out, `vserver [OPTIONS] [--] NAME COMMAND [ARGUMENTS]
vserver [OPTIONS] --all|--mark MARK|--running|--stopped [-j N] [--] COMMAND [ARGUMENTS]
vserver list
vserver COMMAND --help

NAME is a guest, the context of a running one, or the path of its configuration.
COMMAND is one of

`)
	writeWords(out, "", isVerb)
	io.WriteString(out, "\nOptions:\n\n")
	writeWords(out, "", isOption)
	io.WriteString(out, `
Several guests are chosen by conditions that must all hold, also --marked and
--unmarked (apps/init/mark), and worked on 8 at a time (-j). Guests with a file
disabled are passed over. The exit status is 0 if all succeeded, 1 if none did, 2 if
some did.
`)
}
