package radio

import "math"

// Antenna is the pattern of a sector's panel: rows of TR 38.901 elements above
// one another, half a wavelength apart, tilted electrically. The zero value is
// an isotropic radiator.
type Antenna struct {
	Rows  int     // elements in the column; 0 = isotropic
	Tilt  float64 // degrees below the horizon
	Omni  bool    // the same in all directions of the plane
	Width float64 // degrees, beam of 3 dB of an element; 0 = 65
	Front float64 // dB, front-to-back ratio; 0 = 30
	Gain  float64 // dBi of an element; 0 = 8
}

// TR 38.901 Table 7.3-1.
const (
	elementWidth = 65.0
	elementFront = 30.0
	elementGain  = 8.0
)

// Sector is the antenna of a three-sector site in TR 38.901's calibration of UMa
// and UMi: ten elements, 12 degrees down.
var Sector = Antenna{Rows: 10, Tilt: 12}

func or(x, otherwise float64) float64 {
	if x == 0 {
		return otherwise
	}
	return x
}

// GainAt is the gain in dBi towards an angle in degrees off the boresight in the
// plane and an angle in degrees below the horizon: Element + Array.
func (a Antenna) GainAt(azimuth, down float64) float64 {
	return a.Element(azimuth, down) + a.Array(down)
}

// Element is the gain in dBi of one element (TR 38.901 Table 7.3-1):
// G - min(min(12 (φ/w)², F) + min(12 (θ/w)², F), F). An Omni element loses
// nothing in the plane.
func (a Antenna) Element(azimuth, down float64) float64 {
	if a.Rows == 0 {
		return 0
	}
	width, front := or(a.Width, elementWidth), or(a.Front, elementFront)
	v := down / width
	lost := min(float64(12*float64(v*v)), front)
	if !a.Omni {
		for azimuth > 180 {
			azimuth -= 360
		}
		for azimuth < -180 {
			azimuth += 360
		}
		h := azimuth / width
		lost += min(float64(12*float64(h*h)), front)
	}
	return or(a.Gain, elementGain) - min(lost, front)
}

// Array is the gain in dB of a column of elements over one, at an angle in
// degrees below the horizon: |Σ exp(jπm (sin θ - sin tilt))|² / rows, which is
// Fejér's kernel sin²(nψ/2) / (n sin²(ψ/2)) at ψ = π (sin θ - sin tilt). Nulls
// are filled to -30 dB, as no panel has deeper ones.
func (a Antenna) Array(down float64) float64 {
	if a.Rows <= 1 {
		return 0
	}
	half := (sine(down) - sine(a.Tilt)) / 2 // of ψ, in half turns
	n := float64(a.Rows)
	top, bottom := sine(float64(180*float64(n*half))), sine(float64(180*half))
	factor := n
	if math.Abs(bottom) > 1e-9 {
		factor = float64(top*top) / float64(float64(bottom*bottom)*n)
	}
	return DB(max(factor, 1e-3))
}
