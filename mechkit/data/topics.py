"""Plain sentences on a few topics, written for this course: what might a neuron be about?

The first four of each topic are for finding something, the rest for finding out whether it holds. Every
sentence is short and everyday; topics differ in many ways besides their topic, which is the trap they are for.
"""

TOPICS: dict[str, tuple[str, ...]] = {
    "food": (
        "The soup needs more salt and pepper.",
        "She baked a cake with butter and sugar.",
        "We ate rice and beans for dinner.",
        "He fried two eggs in a hot pan.",
        "The bread is still warm from the oven.",
        "They shared a bowl of fresh fruit.",
        "My aunt cooks a very good stew.",
        "Lunch was cheese, olives and bread.",
    ),
    "weather": (
        "The rain fell all night long.",
        "Dark clouds hide the sun today.",
        "A cold wind blew from the north.",
        "Snow covered the roofs and roads.",
        "The storm broke two old trees.",
        "Fog made the road hard to see.",
        "It was warm and dry in June.",
        "Thunder woke the whole street.",
    ),
    "animals": (
        "The dog slept under the table.",
        "Two horses ran across the field.",
        "A bird built a nest in our tree.",
        "The cat chased a small grey mouse.",
        "Wolves live and hunt in packs.",
        "The cow gave birth to a calf.",
        "A snake lay on the warm stone.",
        "Bees make honey in the hive.",
    ),
    "travel": (
        "The train leaves at half past nine.",
        "We flew to Rome with two bags.",
        "She missed the last bus home.",
        "He drove all day to the coast.",
        "The ship reached the port at dawn.",
        "Our hotel was close to the station.",
        "They lost their tickets at the airport.",
        "The road over the pass is closed.",
    ),
    "money": (
        "The bank raised its interest rate.",
        "He paid the bill in cash.",
        "Her salary went up this year.",
        "They sold the house at a loss.",
        "The price of oil fell again.",
        "We saved a little every month.",
        "The company owes a million dollars.",
        "She lent me ten coins for the bus.",
    ),
    "music": (
        "The choir sang an old song.",
        "She plays the violin every day.",
        "He wrote a tune for the piano.",
        "The band played until midnight.",
        "We danced to the beat of drums.",
        "Her voice is low and clear.",
        "The concert began with a flute.",
        "They recorded an album in May.",
    ),
}
