package tasks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// An intent is a name, the slots its answer lists in order, and ways to say it.
// In a saying, {0} is the first slot, {1} the second.
type intent struct {
	name  string
	slots []string // keys of slotValues
	says  []string
}

var intents = []intent{
	{"alarm", []string{"day", "time"}, []string{"wake me at {1} on {0}", "set an alarm for {0} at {1}", "alarm at {1} {0}"}},
	{"call", []string{"name", "line"}, []string{"call {0} on the {1} line", "ring the {1} line of {0}", "phone {0} {1} number"}},
	{"heat", []string{"room", "degrees"}, []string{"heat the {0} to {1} degrees", "make it {1} degrees in the {0}", "warm the {0} up to {1}"}},
	{"light", []string{"room", "level"}, []string{"turn the {0} lights {1}", "set the lights in the {0} to {1}", "lights {1} in the {0}"}},
	{"message", []string{"name", "state"}, []string{"tell {0} i am {1}", "text {0} that i am {1}", "let {0} know i am {1}"}},
	{"play", []string{"music", "room"}, []string{"play {0} in the {1}", "put on some {0} in the {1}", "i want {0} music in the {1}"}},
	{"remind", []string{"thing", "day"}, []string{"remind me to buy {0} on {1}", "on {1} remind me of the {0}", "add {0} to my list for {1}"}},
	{"route", []string{"place", "mode"}, []string{"take me to the {0} by {1}", "how do i get to the {0} by {1}", "{1} route to the {0}"}},
	{"timer", []string{"count", "unit"}, []string{"set a timer for {0} {1}", "count down {0} {1}", "give me {0} {1} on the clock"}},
	{"weather", []string{"city", "day"}, []string{"weather in {0} on {1}", "will it rain in {0} on {1}", "how is {1} in {0}"}},
}

var slotValues = map[string][]string{
	"city":    {"oslo", "paris", "rome", "tokyo", "lima", "cairo", "delhi", "quito", "berlin", "madrid", "vienna", "dublin"},
	"count":   numbers(2, 60),
	"day":     {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"},
	"degrees": numbers(15, 26),
	"level":   {"off", "on", "10", "20", "30", "40", "50", "60", "70", "80", "90"},
	"line":    {"home", "mobile", "office"},
	"mode":    {"bike", "bus", "car", "foot", "train"},
	"music":   {"jazz", "rock", "folk", "blues", "soul", "techno", "opera", "reggae", "piano", "salsa"},
	"name":    {"anna", "ben", "carla", "david", "emma", "finn", "grace", "hugo", "iris", "jonas", "kira", "liam"},
	"place":   {"airport", "station", "school", "gym", "market", "hospital", "museum", "library", "beach", "harbour"},
	"room":    {"kitchen", "bedroom", "den", "hall", "garage", "attic", "porch", "cellar"},
	"state":   {"late", "ready", "lost", "busy", "safe", "done", "away", "sick", "hungry", "awake"},
	"thing":   {"milk", "bread", "eggs", "rice", "soap", "tea", "salt", "fruit", "paper", "nails"},
	"time":    clock(),
	"unit":    {"seconds", "minutes", "hours"},
}

var (
	openings  = []string{"", "", "please ", "hey ", "ok "}
	repairs   = []string{" no wait ", " sorry i mean ", " or rather "}
	redirects = map[string]string{"room": "same room", "name": "same person", "day": "same day"}
)

func numbers(low, high int) []string {
	var out []string
	for i := low; i <= high; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func clock() []string {
	var out []string
	for _, half := range []string{"am", "pm"} {
		for hour := 1; hour <= 12; hour++ {
			for _, minute := range []string{"", " 15", " 30", " 45"} {
				out = append(out, fmt.Sprint(hour)+minute+" "+half)
			}
		}
	}
	return out
}

// A command is an intent with its slots filled: values are meant, spoken are
// said (they differ after a correction or a reference).
type command struct {
	intent
	values, spoken []string
}

func drawCommand(r *rand.Rand) command {
	c := command{intent: pick(r, intents)}
	for _, s := range c.slots {
		v := pick(r, slotValues[s])
		c.values, c.spoken = append(c.values, v), append(c.spoken, v)
	}
	return c
}

func (c command) say(r *rand.Rand) string {
	text := pick(r, c.says)
	for i, v := range c.spoken {
		text = strings.ReplaceAll(text, fmt.Sprintf("{%d}", i), v)
	}
	return text
}

func (c command) meaning() string { return c.name + " " + strings.Join(c.values, " ") }

// repair says a wrong value first and corrects it.
func (c command) repair(r *rand.Rand) {
	i := r.IntN(len(c.slots))
	wrong := c.values[i]
	for wrong == c.values[i] {
		wrong = pick(r, slotValues[c.slots[i]])
	}
	c.spoken[i] = wrong + pick(r, repairs) + c.values[i]
}

// refer makes the command point at a slot of the one before it, if they share a kind.
func (c command) refer(before command) bool {
	for i, s := range c.slots {
		for j, t := range before.slots {
			if s == t && redirects[s] != "" {
				c.values[i], c.spoken[i] = before.values[j], redirects[s]
				return true
			}
		}
	}
	return false
}

// drawAssistant: one command (level 1), which corrects itself (2); two, three or
// four commands with corrections, references, changes of order and now and then
// one that is taken back (3, 4, 5). Nothing is asked: the command is the question.
func drawAssistant(r *rand.Rand, level int) scene {
	if level <= 2 {
		c := drawCommand(r)
		if level == 2 {
			c.repair(r)
		}
		return told(pick(r, openings)+c.say(r), c.meaning(), func(r *rand.Rand) string { return pick(r, openings) + c.say(r) })
	}
	return drawCommands(r, level-1)
}

// told is a scene that is its own question; reworded says it again in other words.
func told(text, meaning string, reworded func(r *rand.Rand) string) scene {
	return scene{text, meaning, func(*rand.Rand) (asked, bool) { return asked{answer: meaning}, true }, reworded}
}

var ordinals = []string{"first", "second", "third", "fourth"}

// drawCommands says n commands of different intents. "but before that" puts a
// command before the one said last; what is taken back is counted as spoken.
func drawCommands(r *rand.Rand, n int) scene {
	var said []command
	var order []int // indices of said, as they are to be done
	text, joins, end := pick(r, openings), []string{""}, ""
	for i := range n {
		c := drawCommand(r)
		for contains(said, c.name) {
			c = drawCommand(r)
		}
		referred := i > 0 && r.IntN(2) == 0 && c.refer(said[i-1])
		if !referred && r.IntN(3) == 0 {
			c.repair(r)
		}
		switch {
		case i == 0:
			order = []int{0}
		case r.IntN(5) == 0:
			joins = append(joins, " but before that ")
			at := slices.Index(order, i-1)
			order = slices.Insert(order, at, i)
		default:
			joins = append(joins, " and then ")
			order = slices.Insert(order, slices.Index(order, i-1)+1, i)
		}
		said, text = append(said, c), text+joins[i]+c.say(r)
	}
	if r.IntN(3) == 0 {
		gone := r.IntN(n)
		end = " , no forget the " + ordinals[gone]
		order = slices.DeleteFunc(order, func(i int) bool { return i == gone })
	}
	meanings := make([]string, len(order))
	for i, o := range order {
		meanings[i] = said[o].meaning()
	}
	return told(text+end, strings.Join(meanings, " ; "), func(r *rand.Rand) string {
		text := pick(r, openings)
		for i, c := range said {
			text += joins[i] + c.say(r)
		}
		return text + end
	})
}

func contains(said []command, name string) bool {
	return slices.ContainsFunc(said, func(c command) bool { return c.name == name })
}
