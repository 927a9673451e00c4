package view

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// The tables of what hosts answer. Hosts without an answer are not in them: they
// come with their errors, behind the table.

// GuestTable prints guests as their hosts have them.
func GuestTable(w io.Writer, records []report.GuestRecord) error {
	var rows [][]string
	for _, r := range records {
		status, up := string(r.Status), ""
		if r.Ended != nil {
			status += " (" + r.Ended.String() + ")"
		}
		if len(r.Drift) > 0 {
			status += " (" + strings.Join(r.Drift, "; ") + ")"
		}
		if r.Problem != "" {
			status += " (" + r.Problem + ")"
		}
		if refusing := api.Refusing(r.Unread); len(refusing) > 0 {
			status += " (does not start: " + strings.Join(api.Explain(refusing), "; ") + ")"
		} else if n := len(r.Unread); n > 0 {
			status += fmt.Sprintf(" (%d of its files have no effect: -o json names them)", n)
		}
		if r.Status == api.Running && !r.Started.IsZero() {
			up = Duration(time.Since(r.Started))
		}
		rows = append(rows, []string{
			r.Host, r.Name, strconv.Itoa(r.Context), status, strconv.Itoa(r.Processes), up,
			r.ImageName, string(r.Network.Mode), r.Network.Summary(),
		})
	}
	return Table(w, []string{"HOST", "GUEST", ">CTX", "STATUS", ">PROC", ">UP", "IMAGE", "NETWORK", "ADDRESSES AND PORTS"}, rows)
}

// HashifiedTable prints what guests share with others now, or could.
func HashifiedTable(w io.Writer, records []report.HashifiedRecord) error {
	var rows [][]string
	for _, r := range records {
		note := r.Problem
		if r.Later {
			note = "at its next start"
		}
		rows = append(rows, []string{r.Host, r.Name, strconv.Itoa(r.Files), Bytes(uint64(max(r.Bytes, 0))), Bytes(uint64(max(r.Added, 0))), note})
	}
	return Table(w, []string{"HOST", "GUEST", ">FILES", ">BYTES", ">NEW", "NOTE"}, rows)
}

// VolumeTable prints the volumes of hosts.
func VolumeTable(w io.Writer, records []report.VolumeRecord) error {
	var rows [][]string
	for _, r := range records {
		guests := strings.Join(r.Guests, ", ")
		if guests == "" {
			guests = "none"
		}
		rows = append(rows, []string{r.Host, r.Name, Bytes(uint64(max(r.Bytes, 0))), guests})
	}
	return Table(w, []string{"HOST", "VOLUME", ">BYTES", "GUESTS"}, rows)
}

// LockTable prints who may change hosts.
func LockTable(w io.Writer, records []report.LockRecord) error {
	clock := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Local().Format(time.DateTime)
	}
	ago := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return Duration(time.Since(t))
	}
	var rows [][]string
	for _, r := range records {
		if r.Lease == nil && r.Lock == nil {
			rows = append(rows, []string{r.Host, "free", "", "", "", "", "", "", ""})
		}
		if l := r.Lease; l != nil {
			rows = append(rows, []string{r.Host, "run", l.Owner, l.Run, l.Reason, clock(l.Since), ago(l.Since), ago(r.Heard), ""})
		}
		if l := r.Lock; l != nil {
			rows = append(rows, []string{r.Host, "locked", l.Owner, l.Run, l.Reason, clock(l.Since), ago(l.Since), "", clock(l.Until)})
		}
	}
	return Table(w, []string{"HOST", "LOCK", "OWNER", "RUN", "REASON", "SINCE", ">AGE", ">HEARD", "UNTIL"}, rows)
}

// UsageTable prints what guests use of their limits.
func UsageTable(w io.Writer, records []report.UsageRecord) error {
	var rows [][]string
	for _, r := range records {
		number := func(n *int64) string {
			switch {
			case n == nil:
				return "-"
			case r.Bytes:
				return Bytes(uint64(max(*n, 0)))
			}
			return strconv.FormatInt(*n, 10)
		}
		hits := "-"
		if r.Hits != nil {
			hits = strconv.FormatInt(*r.Hits, 10)
		}
		if r.Resource == "cpu" && r.Hard != nil { // thousandths
			rows = append(rows, []string{r.Host, r.Guest, r.Resource, "-", "-", "-", strconv.FormatFloat(float64(*r.Hard)/1000, 'g', -1, 64), hits})
			continue
		}
		rows = append(rows, []string{r.Host, r.Guest, r.Resource, number(r.Current), number(r.Peak), number(r.Soft), number(r.Hard), hits})
	}
	return Table(w, []string{"HOST", "GUEST", "RESOURCE", ">CURRENT", ">PEAK", ">SOFT", ">HARD", ">HITS"}, rows)
}

// GenerationTable prints the generations of guests that hosts keep.
func GenerationTable(w io.Writer, records []report.GenerationRecord) error {
	var rows [][]string
	for _, r := range records {
		was := "stopped"
		switch {
		case r.Created:
			was = "not there"
		case r.Running:
			was = "running"
		}
		var changed []string
		if r.Config {
			changed = append(changed, "configuration")
		}
		if r.Layer {
			changed = append(changed, "all its files")
		}
		rows = append(rows, []string{
			r.Host, r.Guest, r.Run, r.Kept.Local().Format(time.DateTime), r.Owner, r.Reason, was, strings.Join(append(changed, r.Files...), ", "),
		})
	}
	return Table(w, []string{"HOST", "GUEST", "BEFORE RUN", "KEPT", "BY", "FOR", "IT WAS", "CHANGED SINCE"}, rows)
}

// ImageTable prints the images of hosts.
func ImageTable(w io.Writer, records []report.ImageRecord) error {
	if len(records) == 0 {
		return nil
	}
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{
			r.Host, imageName(r), shortDigest(r.ID), madeBy(r.Image),
			Bytes(uint64(max(0, r.Bytes))), strconv.FormatInt(r.Files, 10), Duration(time.Since(r.Created)), strconv.Itoa(r.Guests),
		})
	}
	return Table(w, []string{"HOST", "IMAGE", "ID", "MADE BY", ">SIZE", ">FILES", ">AGE", ">GUESTS"}, rows)
}

// madeBy returns how an image was made, with the digest that a tag meant.
func madeBy(image api.Image) string {
	text := image.Spec.Method + " " + strings.Join(image.Spec.Args, " ")
	if _, digest, ok := strings.Cut(image.Source, "@sha256:"); ok && !strings.Contains(text, digest) {
		text += " (sha256:" + digest[:min(12, len(digest))] + ")"
	}
	return text
}

// imageName returns the name of an image with its version.
func imageName(r report.ImageRecord) string {
	name := r.Spec.Name
	if r.Version > 0 {
		name += "@" + strconv.Itoa(r.Version)
	}
	if r.Held {
		name += " (held)"
	}
	return name
}

// VersionTable prints the versions of images.
func VersionTable(w io.Writer, records []report.VersionRecord) error {
	var rows [][]string
	for _, r := range records {
		state := ""
		switch {
		case r.Held != nil:
			state = "held: " + r.Held.Reason
		case r.Current:
			state = "current"
		case r.OtherSpec:
			state = "of another spec"
		}
		id := strings.TrimPrefix(r.ID, "sha256:")
		rows = append(rows, []string{r.String(), id[:min(12, len(id))], r.Arch, r.On, Duration(time.Since(r.Built)), state})
	}
	return Table(w, []string{"VERSION", "ID", "ARCH", "BUILT ON", ">AGE", "STATE"}, rows)
}

var pingColumns = []string{"HOST", "ADDRESS", "VSNODE", "KERNEL", "OS", "ARCH", ">CONNECT", ">START", ">RTT"}

func pingRow(r report.PingRecord) []string {
	return []string{r.Host, r.Address, r.Version, r.Kernel, r.OS, r.Arch, seconds(r.Connect), seconds(r.Start), seconds(r.RoundTrip)}
}

func seconds(s float64) string { return Duration(time.Duration(math.Round(s*1e6)) * time.Microsecond) }

// PingTable prints how hosts answer.
func PingTable(w io.Writer, records []report.PingRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, pingRow(r))
	}
	return Table(w, pingColumns, rows)
}

// PingRows returns a function that prints hosts as they answer, below one
// heading. The columns are as wide as these hosts need.
func PingRows(o Output, hosts []report.HostRecord) func(report.PingRecord) error {
	widths := []int{0, 0, 8, 24, 32, 5, 5, 5, 5} // of what hosts say
	for _, h := range hosts {
		widths[0], widths[1] = max(widths[0], len(h.Host)), max(widths[1], len(h.Address))
	}
	rows := NewRows(o, pingColumns, widths)
	return func(r report.PingRecord) error { return rows.Add(pingRow(r)) }
}

// LabTable prints the hosts of a lab.
func LabTable(w io.Writer, records []report.LabRecord) error {
	var rows [][]string
	for _, r := range records {
		state := "down"
		switch {
		case r.Up && r.SSH:
			state = "up"
		case r.Up:
			state = "up, no sshd"
		}
		rows = append(rows, []string{r.Host, r.Address.String(), state, strconv.Itoa(r.PID), strconv.Itoa(r.Guests)})
	}
	return Table(w, []string{"HOST", "ADDRESS", "STATE", ">PID", ">GUESTS"}, rows)
}

// KeyTable prints host keys.
func KeyTable(w io.Writer, records []report.KeyRecord) error {
	columns := []string{"HOST", "ADDRESS", "TYPE", "FINGERPRINT"}
	if slices.ContainsFunc(records, func(r report.KeyRecord) bool { return r.AlsoKnownAs != nil }) {
		columns = append(columns, "ALSO KNOWN AS")
	}
	var rows [][]string
	for _, r := range records {
		row := []string{r.Host, r.Address, r.Type, r.Fingerprint, strings.Join(r.AlsoKnownAs, ", ")}
		rows = append(rows, row[:len(columns)])
	}
	return Table(w, columns, rows)
}

// SettingTable prints settings of the controller.
func SettingTable(w io.Writer, records []report.SettingRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{r.Name, r.Value, r.Origin})
	}
	return Table(w, []string{"SETTING", "VALUE", "FROM"}, rows)
}

// BackupTable prints the backups of a directory.
func BackupTable(w io.Writer, records []report.BackupRecord) error {
	var rows [][]string
	for _, r := range records {
		size := func(n int64) string { return Bytes(uint64(max(n, 0))) }
		row := []string{r.Backup, r.Taken.Local().Format(time.DateTime), strconv.Itoa(r.Files), size(r.Size), size(r.Added), r.Problem}
		if r.Problem != "" {
			row = []string{r.Backup, "", "", "", "", r.Problem}
		}
		rows = append(rows, row)
	}
	return Table(w, []string{"BACKUP", "TAKEN", ">FILES", ">SIZE", ">ADDED", "PROBLEM"}, rows)
}
