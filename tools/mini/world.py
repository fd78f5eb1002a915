"""What the embedded base knows: the nouns, backgrounds and picture styles of its captions.

A noun maps to the short name of the one emoji that shows it in ``emoji-datasource-google`` (Noto).
"""

NOUNS: dict[str, str] = {
    # animals
    "dog": "dog2",
    "cat": "cat2",
    "poodle": "poodle",
    "fox": "fox_face",
    "wolf": "wolf",
    "lion": "lion_face",
    "tiger": "tiger2",
    "horse": "racehorse",
    "unicorn": "unicorn_face",
    "zebra": "zebra_face",
    "cow": "cow2",
    "pig": "pig2",
    "sheep": "sheep",
    "goat": "goat",
    "camel": "dromedary_camel",
    "giraffe": "giraffe_face",
    "elephant": "elephant",
    "mouse": "mouse2",
    "hamster": "hamster",
    "rabbit": "rabbit2",
    "squirrel": "chipmunk",
    "hedgehog": "hedgehog",
    "bear": "bear",
    "koala": "koala",
    "panda": "panda_face",
    "monkey": "monkey",
    "frog": "frog",
    "chicken": "rooster",
    "chick": "baby_chick",
    "bird": "bird",
    "penguin": "penguin",
    "duck": "duck",
    "swan": "swan",
    "owl": "owl",
    "parrot": "parrot",
    "flamingo": "flamingo",
    "turtle": "turtle",
    "snake": "snake",
    "dinosaur": "t-rex",
    "dragon": "dragon",
    "whale": "whale",
    "dolphin": "dolphin",
    "fish": "fish",
    "shark": "shark",
    "octopus": "octopus",
    "crab": "crab",
    "snail": "snail",
    "butterfly": "butterfly",
    "bee": "bee",
    "ladybug": "ladybug",
    "spider": "spider",
    # plants and food
    "tree": "deciduous_tree",
    "christmas tree": "christmas_tree",
    "cactus": "cactus",
    "mushroom": "mushroom",
    "flower": "tulip",
    "rose": "rose",
    "sunflower": "sunflower",
    "apple": "apple",
    "banana": "banana",
    "orange": "tangerine",
    "lemon": "lemon",
    "strawberry": "strawberry",
    "grapes": "grapes",
    "watermelon": "watermelon",
    "pineapple": "pineapple",
    "tomato": "tomato",
    "carrot": "carrot",
    "corn": "corn",
    "pizza": "pizza",
    "hamburger": "hamburger",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "cake": "birthday",
    "cupcake": "cupcake",
    "ice cream": "icecream",
    "egg": "fried_egg",
    "cup": "coffee",
    "teapot": "teapot",
    # vehicles and buildings
    "car": "car",
    "taxi": "taxi",
    "bus": "bus",
    "truck": "truck",
    "tractor": "tractor",
    "fire truck": "fire_engine",
    "train": "steam_locomotive",
    "bicycle": "bike",
    "scooter": "motor_scooter",
    "airplane": "airplane",
    "helicopter": "helicopter",
    "rocket": "rocket",
    "boat": "boat",
    "ship": "ship",
    "house": "house",
    "castle": "european_castle",
    "tent": "tent",
    # things
    "backpack": "school_satchel",
    "handbag": "handbag",
    "suitcase": "luggage",
    "hat": "tophat",
    "shoe": "athletic_shoe",
    "shirt": "shirt",
    "dress": "dress",
    "umbrella": "umbrella",
    "teddy bear": "teddy_bear",
    "robot": "robot_face",
    "ghost": "ghost",
    "snowman": "snowman_without_snow",
    "pumpkin": "jack_o_lantern",
    "ball": "basketball",
    "balloon": "balloon",
    "kite": "kite",
    "gift": "gift",
    "crown": "crown",
    "clock": "alarm_clock",
    "guitar": "guitar",
    "drum": "drum_with_drumsticks",
    "camera": "camera",
    "phone": "iphone",
    "book": "closed_book",
    "key": "key",
    "hammer": "hammer",
    "candle": "candle",
    "lamp": "bulb",
    "chair": "chair",
    "bed": "bed",
    "bell": "bell",
    "trophy": "trophy",
}

#: Faces and other drawings of a noun's thing, each under a name of its own: one noun with two drawings is drawn as
#: a blend of both.
FURTHER: dict[str, str] = {
    "dog face": "dog",
    "cat face": "cat",
    "horse face": "horse",
    "cow face": "cow",
    "pig face": "pig",
    "tiger face": "tiger",
    "mouse face": "mouse",
    "rabbit face": "rabbit",
    "monkey face": "monkey_face",
    "dragon face": "dragon_face",
    "soccer ball": "soccer",
    "sundae": "ice_cream",
}

#: The nouns most of the denoiser's scenes are about; its figures are about these. CLIP, which learns faster, knows all
#: of NOUNS.
CORE: tuple[str, ...] = (
    "dog", "cat", "fox", "lion", "horse", "pig", "cow", "sheep", "elephant", "mouse", "rabbit", "bear", "panda",
    "monkey", "frog", "chick", "bird", "penguin", "duck", "owl", "turtle", "fish", "whale", "crab", "butterfly",
    "tree", "cactus", "mushroom", "flower", "sunflower", "apple", "banana", "strawberry", "watermelon", "carrot",
    "pizza", "hamburger", "donut", "cake", "ice cream", "car", "bus", "truck", "train", "airplane", "rocket", "boat",
    "house", "castle", "backpack", "hat", "shoe", "umbrella", "teddy bear", "robot", "ghost", "snowman", "ball",
    "balloon", "gift", "crown", "clock", "guitar", "book", "key", "chair",
)  # fmt: skip

#: Phrase of each painted background; ``scenes.py`` has one painter a key.
BACKGROUNDS: dict[str, str] = {
    "beach": "on the beach",
    "forest": "in the forest",
    "snow": "in the snow",
    "night": "at night",
    "city": "in the city",
    "desert": "in the desert",
    "grass": "on the grass",
    "mountains": "in the mountains",
    "water": "under water",
    "room": "in a room",
    "sunset": "at sunset",
    "road": "on the road",
}

#: Plain backgrounds, "on a red background": the colour's centre in RGB.
PLAIN: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "gray": (140, 140, 140),
    "black": (18, 18, 18),
    "red": (214, 48, 49),
    "orange": (244, 148, 46),
    "yellow": (249, 219, 88),
    "green": (64, 176, 92),
    "blue": (58, 118, 222),
    "purple": (138, 84, 196),
    "pink": (248, 164, 196),
    "brown": (134, 90, 58),
}

#: Colour words in front of a noun ("a blue dog") and the hue, in turns, its drawing is tinted to.
TINTS: dict[str, float] = {
    "red": 0.0,
    "orange": 0.085,
    "yellow": 0.15,
    "green": 0.36,
    "blue": 0.60,
    "purple": 0.76,
    "pink": 0.92,
}

#: How a caption opens, by picture style.
STYLES: dict[str, str] = {
    "photo": "a photo of",
    "pencil": "a pencil drawing of",
    "pixel": "a pixel art of",
    "watercolor": "a watercolor painting of",
    "oil": "an oil painting of",
    "monochrome": "a black and white photo of",
}

#: Longer side of a thing, as a share of the image's, by the word that says it; without a word each stream has its own.
SIZES: dict[str, tuple[float, float]] = {"small": (0.36, 0.48), "": (0.52, 0.74), "big": (0.78, 0.94)}

#: Words that change nothing in the picture: what the text encoder learns to pass over, so that a prompt with
#: ordinary words the world does not hold still draws.
FILLERS = (
    "cute nice lovely beautiful little funny happy old new shiny fluffy cool great good detailed perfect "
    "famous wonderful bright sad tiny simple modern classic favourite"
).split()

#: Further whole words of the vocabulary; never in a caption of the recipe, but common in users' prompts.
EXTRA_WORDS = (
    "the and with near from to by is are one two three my your style drawing painting ink picture image toy art "
    "digital sketch portrait wearing sitting standing sleeping running playing looking holding front back top "
    "side left right middle center next behind under over table floor street park garden field river lake sea "
    "sky sun moon star rain cloud window door wall kitchen hat scarf glasses red colour color wooden glass "
    "metal stone soft high quality close up view large small big water fire light dark day morning evening"
).split()


def article(noun: str) -> str:
    """ "a" or "an", or nothing before a plural noun."""
    if noun == "grapes":
        return ""
    return "an" if noun[0] in "aeiou" and not noun.startswith("uni") else "a"
