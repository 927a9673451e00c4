package view

import (
	"io"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// CollectTable prints what hosts have removed of their images.
func CollectTable(w io.Writer, records []report.CollectRecord) error {
	var rows [][]string
	for _, r := range records {
		if r.Status != outcome.OK {
			continue
		}
		var images []string
		for _, img := range r.Images {
			images = append(images, img.Spec.Name+" "+shortDigest(img.ID))
		}
		rows = append(rows, []string{r.Host, strings.Join(images, ", "), strconv.Itoa(r.Objects), Bytes(uint64(r.Bytes)), strings.Join(r.Notes, "; ")})
	}
	if rows == nil {
		return nil
	}
	return Table(w, []string{"HOST", "IMAGES", ">OBJECTS", ">SIZE", "NOTES"}, rows)
}

// StoreTable prints what is damaged in the images of hosts, and which hosts are sound.
func StoreTable(w io.Writer, records []report.StoreRecord) error {
	var rows [][]string
	for _, r := range records {
		if r.Status != outcome.OK {
			continue
		}
		if len(r.Damaged) == 0 {
			rows = append(rows, []string{r.Host, strconv.Itoa(r.Images), strconv.Itoa(r.Objects), "none", "", ""})
		}
		for _, d := range r.Damaged {
			rows = append(rows, []string{r.Host, strconv.Itoa(r.Images), strconv.Itoa(r.Objects), d.What, shortDigests(d), strings.Join(d.Users, ", ")})
		}
	}
	if rows == nil {
		return nil
	}
	return Table(w, []string{"HOST", ">IMAGES", ">OBJECTS", "DAMAGE", "OF IMAGES", "USED BY"}, rows)
}

func shortDigests(d api.Damage) string {
	var ids []string
	for _, id := range d.Images {
		ids = append(ids, shortDigest(id))
	}
	return strings.Join(ids, ", ")
}

func shortDigest(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
