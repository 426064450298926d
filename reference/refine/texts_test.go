package refine

import (
	"fmt"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
)

var llmAll = llm.ReadOptions{}

// spoken are texts that a shipped model knows: prompts, and what it answers.
func spoken(l *models.Loaded) (list [][]int32) {
	r := rng.Stream(13, "refine texts")
	things := []string{"can", "cup", "tool", "box", "ball"}
	ways := []string{"straight", "left", "right"}
	digit := func() int { return 1 + r.IntN(5) }
	w := l.Model.NewWork(1)
	defer w.Close()
	for i := range 24 {
		a := r.IntN(5)
		prompt := fmt.Sprintf("robot %d%d , %s %d%d , %s %d%d , shelf %d%d ; store %s =>",
			digit(), digit(), things[a], digit(), digit(), things[(a+2)%5], digit(), digit(), digit(), digit(), things[a])
		if i%2 == 0 {
			prompt = fmt.Sprintf("me south %s , car east %s , dry ; may me go =>", ways[r.IntN(3)], ways[r.IntN(3)])
		}
		ids := l.Tokenizer.EncodePrompt(prompt)
		c, err := l.Model.NewCache(0, l.Model.Layers, len(ids)+20)
		if err != nil {
			panic(err)
		}
		answer, err := w.Generate(c, ids, 20, llm.Greedy, func(id int32) bool { return id == l.Tokenizer.EOS() })
		if err != nil {
			panic(err)
		}
		list = append(list, append(ids, answer...))
	}
	return list
}
