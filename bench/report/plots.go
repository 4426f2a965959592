package report

import (
	"bytes"
	"cmp"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/lode-node/lode/bench"
)

// Colours of clients and rankers: dark enough on white, apart for the colour-blind.
var (
	blue   = color.RGBA{0x00, 0x5f, 0xb3, 0xff}
	orange = color.RGBA{0xc4, 0x56, 0x00, 0xff}
	green  = color.RGBA{0x00, 0x7a, 0x54, 0xff}
	purple = color.RGBA{0x8a, 0x3f, 0x93, 0xff}
	grey   = color.RGBA{0x77, 0x77, 0x77, 0xff}
	pale   = color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
)

// colourOf returns the colour of a client or ranker.
func colourOf(name string) color.RGBA {
	switch name {
	case bench.Lode:
		return blue
	case bench.Stock: // and bench.First
		return orange
	case bench.LodeWild, bench.Lassie:
		return green
	case bench.Kubo, bench.Rainbow, bench.Random:
		return purple
	}
	return grey
}

// newPlot returns a plot whose words are in a plain face.
func newPlot(x string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text = x
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		s.Font.Variant = "Sans"
		s.Font.Size = vg.Points(9)
	}
	p.X.Padding, p.Y.Padding = vg.Points(2), vg.Points(2)
	return p
}

// svg draws p, w by h inches, as an element that can stand in HTML.
func svg(p *plot.Plot, w, h float64) template.HTML {
	c := vgsvg.New(vg.Length(w)*vg.Inch, vg.Length(h)*vg.Inch)
	p.Draw(draw.Crop(draw.New(c), vg.Points(6), -vg.Points(6), 0, 0)) // names may stand out on the left
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil { // a buffer takes all
		panic("report: " + err.Error())
	}
	s := b.String()
	s = s[strings.Index(s, "<svg"):]
	s = strings.ReplaceAll(s, "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return template.HTML(s) // vgsvg escapes the words; nothing else comes from outside
}

// A dot is a value with its interval, on a line of its own.
type dot struct {
	name        string
	mid, lo, hi float64
	colour      color.Color
}

// dots draws values, the first at the top, on an axis of powers of two around
// one; what is not above zero cannot stand there and is left out.
func dots(ds []dot, axis string) template.HTML {
	ds = slices.DeleteFunc(slices.Clone(ds), func(d dot) bool { return !finite(d.mid, d.lo, d.hi) || d.lo <= 0 || d.hi < d.lo })
	if len(ds) == 0 {
		return ""
	}
	slices.Reverse(ds)
	p := newPlot(axis)
	p.X.Scale = plot.LogScale{}
	lo, hi := 0.5, 2.0
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = d.name
		lo, hi = min(lo, d.lo/1.2), max(hi, d.hi*1.2)
	}
	p.X.Tick.Marker = powersOfTwo{}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(ds)) - 0.5}})
	must(err)
	one.Color, one.Width = pale, vg.Points(2)
	p.Add(one)
	for i, d := range ds {
		bar, err := plotter.NewLine(plotter.XYs{{X: d.lo, Y: float64(i)}, {X: d.hi, Y: float64(i)}})
		must(err)
		bar.Color, bar.Width = d.colour, vg.Points(1.5)
		at, err := plotter.NewScatter(plotter.XYs{{X: d.mid, Y: float64(i)}})
		must(err)
		at.GlyphStyle = draw.GlyphStyle{Color: d.colour, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		p.Add(bar, at)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = lo, hi, -0.5, float64(len(ds))-0.5
	return svg(p, 8, 0.7+0.2*float64(len(ds)))
}

// strip draws the values of each name as dots on a line of their own, on an axis
// from zero, and their median as a tick.
func strip(names []string, values map[string][]float64, axis string) template.HTML {
	p := newPlot(axis)
	top := 0.0
	rows := slices.Clone(names)
	slices.Reverse(rows)
	for i, name := range rows {
		vs := slices.DeleteFunc(slices.Clone(values[name]), func(v float64) bool { return !finite(v) })
		if len(vs) == 0 {
			continue
		}
		var at plotter.XYs
		for _, v := range vs {
			at = append(at, plotter.XY{X: v, Y: float64(i)})
			top = max(top, v)
		}
		s, err := plotter.NewScatter(at)
		must(err)
		s.GlyphStyle = draw.GlyphStyle{Color: colourOf(name), Radius: vg.Points(3), Shape: draw.RingGlyph{}}
		mid := bench.Median(vs)
		m, err := plotter.NewLine(plotter.XYs{{X: mid, Y: float64(i) - 0.35}, {X: mid, Y: float64(i) + 0.35}})
		must(err)
		m.Color, m.Width = colourOf(name), vg.Points(2)
		p.Add(s, m)
	}
	if top == 0 {
		return ""
	}
	p.NominalY(rows...)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, top*1.05, -0.6, float64(len(rows))-0.4
	return svg(p, 6, 0.55+0.22*float64(len(rows)))
}

// lines draws a line for each name over the tenths of a run.
func lines(names []string, values map[string][]float64, x, y string) template.HTML {
	p := newPlot(x)
	p.Y.Label.Text = y
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Padding = true, vg.Points(3)
	low := 100.0
	for _, name := range names {
		var at plotter.XYs
		for i, v := range values[name] {
			if finite(v) {
				at = append(at, plotter.XY{X: float64(i+1) * 100 / float64(len(values[name])), Y: v})
				low = min(low, v)
			}
		}
		if len(at) == 0 {
			continue
		}
		l, err := plotter.NewLine(at)
		must(err)
		l.Color, l.Width = colourOf(name), vg.Points(1.8)
		p.Add(l)
		p.Legend.Add(name, l)
	}
	var ticks plot.ConstantTicks
	for v := 0; v <= 100; v += 10 {
		ticks = append(ticks, plot.Tick{Value: float64(v), Label: strconv.Itoa(v)})
	}
	p.X.Tick.Marker = ticks
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 120, math.Floor(low/10)*10, 100 // the legend has the space above 100
	return svg(p, 7, 3.2)
}

// powersOfTwo marks …, ½, 1, 2, 4, … on a logarithmic axis.
type powersOfTwo struct{}

func (powersOfTwo) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	step := max(1, int(math.Ceil(math.Log2(hi/lo)/12)))
	for e := -60; e <= 60; e++ {
		v := math.Exp2(float64(e))
		if v < lo || v > hi {
			continue
		}
		t := plot.Tick{Value: v}
		if e%step == 0 {
			t.Label = strconv.FormatFloat(v, 'g', 3, 64)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b plot.Tick) int { return cmp.Compare(a.Value, b.Value) })
	return out
}

// finite reports whether all vs can stand on an axis.
func finite(vs ...float64) bool {
	return !slices.ContainsFunc(vs, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// must panics: plotters refuse nothing but empty and infinite data, which have
// been taken out.
func must(err error) {
	if err != nil {
		panic("report: " + err.Error())
	}
}
