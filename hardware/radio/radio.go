// Package radio has the laws of a cellular and a Wi-Fi radio as pure functions
// and tables: path loss, line of sight, shadowing, antennas, power, noise, SINR,
// link adaptation, HARQ, the sharing of a cell and contention. It knows no
// world, no clock and no user; package city puts it into a world.
//
//	law := radio.UMa.Law(3.5e9, 25, 1.5)                       // carrier, heights of base and user
//	loss := law.Loss(true, 300)                                // dB, 300 m away, in sight
//	snr := 46 - loss - radio.Noise(100e6, 9)                   // dBm - dB - dBm
//	nr := radio.MustCarrier(3.5e9, 100e6)                      // 30 kHz, 273 resource blocks
//	rate := nr.BitsPerSec(radio.MustTable(2).Goodput(snr), 1)  // one layer, all resource blocks, no TDD
//
// The one idea: every answer depends on its arguments alone. Chance is a smooth
// field over the plane that is keyed by a seed (Field), so any place can be
// asked in any order and gives the same bits on every machine.
//
// Sources: 3GPP TR 38.901 V16.1 (path loss, line of sight, shadowing, antenna
// element, penetration), TS 38.101-1/-2 (resource blocks), TS 38.214 (MCS and
// CQI), TS 38.306 §4.1.2 (rate), TS 38.213 §7.1 (uplink power control), Bianchi
// 2000 (Wi-Fi). docs/radio.md writes the formulas out.
//
// What it does not do: fast fading as a trace, beam management, MIMO beyond a
// number of equal layers, coordinated transmission, interference between uplink
// and downlink, and outdoor-to-indoor users in Field (Penetration is there for
// calibration drops).
package radio

import (
	"math"

	"meibench/internal/portable"
)

const (
	lightSpeed = 3.0e8 // m/s, as TR 38.901 rounds it (Table 7.4.1-1, note 1)
	ln10       = 2.302585092994045684
	// ThermalDBmPerHz is thermal noise at 290 K.
	ThermalDBmPerHz = -174.0
)

// lg is the decimal logarithm with the same bits on every machine.
func lg(x float64) float64 { return portable.Log(x) / ln10 }

// DB is a ratio in decibels.
func DB(ratio float64) float64 { return float64(10 * lg(ratio)) }

// Ratio is the inverse of DB. It also makes milliwatts of dBm.
func Ratio(db float64) float64 { return portable.Exp(float64(db * (ln10 / 10))) }

// Noise is the thermal noise in dBm of a receiver with a noise figure in dB over
// a bandwidth in Hz.
func Noise(bandwidth, figure float64) float64 {
	return ThermalDBmPerHz + DB(bandwidth) + figure
}

// SINR is the ratio in dB of a received power to noise and interferers, all in
// dBm; loads are the shares of time in which each interferer transmits, in
// [0, 1], nil = always.
func SINR(signal, noise float64, interferers, loads []float64) float64 {
	sum := Ratio(noise)
	for i, p := range interferers {
		x := Ratio(p)
		if loads != nil {
			x = float64(x * loads[i])
		}
		sum += x
	}
	return signal - DB(sum)
}

// PowerControl is open-loop uplink power control (TS 38.213 §7.1.1 without its
// closed loop): a user aims at P0 per resource block at the base, and makes up
// for the fraction Alpha of its loss.
type PowerControl struct {
	P0    float64 // dBm per resource block
	Alpha float64 // 0 to 1
	Max   float64 // dBm in all, 23 for a handset of class 3
}

// Power is what a user with a coupling loss in dB sends over a number of
// resource blocks, in dBm in all.
func (c PowerControl) Power(loss float64, blocks int) float64 {
	return min(c.Max, c.P0+DB(float64(blocks))+float64(c.Alpha*loss))
}

// Jain is the fairness index of Jain, Chiu and Hawe (1984), (Σx)² / (n Σx²): 1
// if all have the same, 1/n if one has all. No values, or zeros only, give 1.
func Jain(x []float64) float64 {
	sum, square := 0.0, 0.0
	for _, v := range x {
		sum += v
		square += float64(v * v)
	}
	if square == 0 {
		return 1
	}
	return float64(sum*sum) / float64(float64(len(x))*square)
}

// atan2 is the angle of (x, y) in degrees, to 1e-10, with the same bits on every
// machine.
func atan2(y, x float64) float64 {
	ax, ay := math.Abs(x), math.Abs(y)
	if ax == 0 && ay == 0 {
		return 0
	}
	a := 0.0
	if ay <= ax {
		a = atan(ay / ax)
	} else {
		a = 90 - atan(ax/ay)
	}
	if x < 0 {
		a = 180 - a
	}
	if y < 0 {
		return -a
	}
	return a
}

// atan is the angle in degrees of 0 <= t <= 1: moved to within tan(π/8) of 0,
// then the odd series to the 23rd power, whose rest is below 3e-11.
func atan(t float64) float64 {
	const degrees = 180 / math.Pi
	base := 0.0
	if t > math.Sqrt2-1 {
		base, t = 45, (t-1)/(t+1)
	}
	t2, s := float64(t*t), 0.0
	for k := 23; k >= 1; k -= 2 {
		c := 1 / float64(k)
		if k%4 == 3 {
			c = -c
		}
		s = c + float64(s*t2)
	}
	return base + float64(float64(s*t)*degrees)
}

// sine is the sine of an angle in degrees.
func sine(degrees float64) float64 { return portable.CosTurns((degrees - 90) / 360) }
