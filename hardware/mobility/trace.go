package mobility

import (
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"meibench/internal/portable"
)

// Point is where somebody was.
type Point struct {
	At   time.Duration
	X, Y float64 // m
}

// Path is a recorded track: times ascend. Between points the way is straight; before
// the first and after the last one the user stands still.
type Path []Point

type recorded struct {
	path Path
	i    int // the last point that is not later than the latest question
}

func (r *recorded) At(t time.Duration) (x, y float64) {
	p := r.path
	if t < p[r.i].At {
		r.i = 0
	}
	if r.i+1 < len(p) && t >= p[r.i+1].At {
		r.i += sort.Search(len(p)-r.i-1, func(k int) bool { return p[r.i+1+k].At > t })
	}
	a := &p[r.i]
	if t <= a.At || r.i+1 == len(p) {
		return a.X, a.Y
	}
	b := &p[r.i+1]
	f := between(t, a.At, b.At)
	return a.X + float64(f*(b.X-a.X)), a.Y + float64(f*(b.Y-a.Y))
}

// MostPoints is the largest number of points that a file may have.
const MostPoints = 10_000_000

// paths collects points in the order of a file.
type paths struct {
	name  string
	out   []Path
	index map[string]int
	n     int
}

// add puts a point behind those of its user; where is a line or a point for errors.
func (p *paths) add(where, user string, pt Point) error {
	if p.n++; p.n > MostPoints {
		return fmt.Errorf("%s: more than %d points", p.name, MostPoints)
	}
	if !finite(pt.X, pt.Y) || math.Abs(pt.X) > 1e8 || math.Abs(pt.Y) > 1e8 {
		return fmt.Errorf("%s, %s: place (%g, %g): want finite metres within 1e8", p.name, where, pt.X, pt.Y)
	}
	i, ok := p.index[user]
	if !ok {
		i = len(p.out)
		p.index[user], p.out = i, append(p.out, nil)
	}
	if n := len(p.out[i]); n > 0 && pt.At <= p.out[i][n-1].At {
		return fmt.Errorf("%s, %s: time goes back: %v after %v (sort the points of each user by time, and keep one per moment)", p.name, where, pt.At, p.out[i][n-1].At)
	}
	p.out[i] = append(p.out[i], pt)
	return nil
}

// ReadCSV reads tracks with the columns t,x,y or user,t,x,y, named in the first line:
// seconds since the run began, and metres. Users come in the order in which they
// first appear.
func ReadCSV(name string, r io.Reader) ([]Path, error) {
	in := csv.NewReader(r)
	in.ReuseRecord, in.TrimLeadingSpace = true, true
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: read the header: %w", name, err)
	}
	cols := strings.ToLower(strings.Join(head, ","))
	first := 0
	switch cols {
	case "t,x,y":
	case "user,t,x,y":
		first = 1
	default:
		return nil, fmt.Errorf("%s: header %q: want t,x,y or user,t,x,y (seconds and metres)", name, cols)
	}
	p := &paths{name: name, index: map[string]int{}}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		line, _ := in.FieldPos(0)
		where, user := fmt.Sprint("line ", line), ""
		if first == 1 {
			user = row[0]
		}
		var v [3]float64
		for i := range v {
			if v[i], err = strconv.ParseFloat(row[first+i], 64); err != nil {
				return nil, fmt.Errorf("%s, %s: %q is not a number", name, where, row[first+i])
			}
		}
		if !(v[0] >= 0 && v[0] < 1e9) {
			return nil, fmt.Errorf("%s, %s: time %g s: want 0 to 1e9", name, where, v[0])
		}
		if err := p.add(where, user, Point{nanos(v[0]), v[1], v[2]}); err != nil {
			return nil, err
		}
	}
	if len(p.out) == 0 {
		return nil, fmt.Errorf("%s: no points", name)
	}
	return p.out, nil
}

// gpx is what is read of a GPX 1.1 file.
type gpx struct {
	Tracks []struct {
		Segments []struct {
			Points []struct {
				Lat  string `xml:"lat,attr"`
				Lon  string `xml:"lon,attr"`
				Time string `xml:"time"`
			} `xml:"trkpt"`
		} `xml:"trkseg"`
	} `xml:"trk"`
}

// earth is the mean radius, m (IUGG 1980).
const earth = 6_371_008.8

// ReadGPX reads the tracks of a GPX file, one user each. Places are metres east and
// north of the first point (equirectangular projection: off by less than 1 in 1000
// within 30 km at 50 degrees), times are since the earliest point.
func ReadGPX(name string, r io.Reader) ([]Path, error) {
	var doc gpx
	if err := xml.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	type place struct {
		user     string
		lat, lon float64
		at       time.Time
	}
	var all []place
	var start time.Time
	for i, trk := range doc.Tracks {
		for _, seg := range trk.Segments {
			for _, pt := range seg.Points {
				lat, err1 := strconv.ParseFloat(pt.Lat, 64)
				lon, err2 := strconv.ParseFloat(pt.Lon, 64)
				at, err3 := time.Parse(time.RFC3339Nano, strings.TrimSpace(pt.Time))
				if err := errors.Join(err1, err2, err3); err != nil {
					return nil, fmt.Errorf("%s, point %d: %w", name, len(all)+1, err)
				}
				if !(lat >= -89 && lat <= 89 && lon >= -180 && lon <= 180) {
					return nil, fmt.Errorf("%s, point %d: (%g, %g): want degrees within 89 north or south and 180 east or west", name, len(all)+1, lat, lon)
				}
				if start.IsZero() || at.Before(start) {
					start = at
				}
				all = append(all, place{fmt.Sprint(i), lat, lon, at})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no trkpt with a time", name)
	}
	p := &paths{name: name, index: map[string]int{}}
	perDegree := earth * math.Pi / 180
	narrow := portable.CosTurns(math.Abs(all[0].lat) / 360)
	for i, q := range all {
		east := math.Mod(q.lon-all[0].lon+540, 360) - 180
		pt := Point{q.at.Sub(start), float64(float64(east*perDegree) * narrow), float64((q.lat - all[0].lat) * perDegree)}
		if err := p.add(fmt.Sprint("point ", i+1), q.user, pt); err != nil {
			return nil, err
		}
	}
	return p.out, nil
}
