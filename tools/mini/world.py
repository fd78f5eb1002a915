"""What the embedded base knows: the nouns, backgrounds and picture styles of its captions.

A noun maps to the short names of the emoji that show it in ``emoji-datasource-google`` (Noto). Several emoji
of one noun are several individuals: the base learns a class, not one drawing.
"""

NOUNS: dict[str, tuple[str, ...]] = {
    # animals
    "dog": ("dog", "dog2", "guide_dog"),
    "cat": ("cat", "cat2"),
    "poodle": ("poodle",),
    "fox": ("fox_face",),
    "wolf": ("wolf",),
    "lion": ("lion_face",),
    "tiger": ("tiger", "tiger2"),
    "horse": ("horse", "racehorse"),
    "unicorn": ("unicorn_face",),
    "zebra": ("zebra_face",),
    "cow": ("cow", "cow2"),
    "pig": ("pig", "pig2"),
    "sheep": ("sheep",),
    "goat": ("goat",),
    "camel": ("camel", "dromedary_camel"),
    "giraffe": ("giraffe_face",),
    "elephant": ("elephant",),
    "mouse": ("mouse", "mouse2"),
    "hamster": ("hamster",),
    "rabbit": ("rabbit", "rabbit2"),
    "squirrel": ("chipmunk",),
    "hedgehog": ("hedgehog",),
    "bear": ("bear",),
    "koala": ("koala",),
    "panda": ("panda_face",),
    "monkey": ("monkey", "monkey_face"),
    "frog": ("frog",),
    "chicken": ("chicken", "rooster"),
    "chick": ("baby_chick", "hatched_chick"),
    "bird": ("bird",),
    "penguin": ("penguin",),
    "duck": ("duck",),
    "swan": ("swan",),
    "owl": ("owl",),
    "parrot": ("parrot",),
    "flamingo": ("flamingo",),
    "turtle": ("turtle",),
    "snake": ("snake",),
    "dinosaur": ("sauropod", "t-rex"),
    "dragon": ("dragon", "dragon_face"),
    "whale": ("whale", "whale2"),
    "dolphin": ("dolphin",),
    "fish": ("fish", "tropical_fish"),
    "shark": ("shark",),
    "octopus": ("octopus",),
    "crab": ("crab",),
    "snail": ("snail",),
    "butterfly": ("butterfly",),
    "bee": ("bee",),
    "ladybug": ("ladybug",),
    "spider": ("spider",),
    # plants and food
    "tree": ("deciduous_tree",),
    "christmas tree": ("christmas_tree",),
    "cactus": ("cactus",),
    "mushroom": ("mushroom",),
    "flower": ("tulip", "hibiscus", "blossom"),
    "rose": ("rose",),
    "sunflower": ("sunflower",),
    "apple": ("apple", "green_apple"),
    "banana": ("banana",),
    "orange": ("tangerine",),
    "lemon": ("lemon",),
    "strawberry": ("strawberry",),
    "grapes": ("grapes",),
    "watermelon": ("watermelon",),
    "pineapple": ("pineapple",),
    "tomato": ("tomato",),
    "carrot": ("carrot",),
    "corn": ("corn",),
    "pizza": ("pizza",),
    "hamburger": ("hamburger",),
    "hot dog": ("hotdog",),
    "donut": ("doughnut",),
    "cake": ("cake", "birthday"),
    "cupcake": ("cupcake",),
    "ice cream": ("icecream", "ice_cream"),
    "egg": ("fried_egg",),
    "cup": ("coffee", "tea"),
    "teapot": ("teapot",),
    # vehicles and buildings
    "car": ("car", "oncoming_automobile", "blue_car"),
    "taxi": ("taxi", "oncoming_taxi"),
    "bus": ("bus", "oncoming_bus"),
    "truck": ("truck", "pickup_truck"),
    "tractor": ("tractor",),
    "fire truck": ("fire_engine",),
    "train": ("steam_locomotive", "train2"),
    "bicycle": ("bike",),
    "scooter": ("motor_scooter",),
    "airplane": ("airplane", "small_airplane"),
    "helicopter": ("helicopter",),
    "rocket": ("rocket",),
    "boat": ("boat", "speedboat"),
    "ship": ("ship", "passenger_ship"),
    "house": ("house", "house_with_garden"),
    "castle": ("european_castle",),
    "tent": ("tent",),
    # things
    "backpack": ("school_satchel",),
    "handbag": ("handbag",),
    "suitcase": ("luggage",),
    "hat": ("tophat", "womans_hat"),
    "shoe": ("athletic_shoe", "mans_shoe"),
    "shirt": ("shirt",),
    "dress": ("dress",),
    "umbrella": ("umbrella",),
    "teddy bear": ("teddy_bear",),
    "robot": ("robot_face",),
    "ghost": ("ghost",),
    "snowman": ("snowman_without_snow", "snowman"),
    "pumpkin": ("jack_o_lantern",),
    "ball": ("basketball", "soccer", "tennis"),
    "balloon": ("balloon",),
    "kite": ("kite",),
    "gift": ("gift",),
    "crown": ("crown",),
    "clock": ("alarm_clock", "mantelpiece_clock"),
    "guitar": ("guitar",),
    "drum": ("drum_with_drumsticks",),
    "camera": ("camera",),
    "phone": ("iphone", "phone"),
    "book": ("closed_book", "green_book", "blue_book"),
    "key": ("key",),
    "hammer": ("hammer",),
    "candle": ("candle",),
    "lamp": ("bulb",),
    "chair": ("chair",),
    "bed": ("bed",),
    "bell": ("bell",),
    "trophy": ("trophy",),
}

#: The nouns the denoiser goes on with in the second half of its training; its figures are about these. CLIP, which
#: learns faster, knows all of NOUNS.
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

#: How a caption opens, by picture style, and how often the style is drawn.
STYLES: dict[str, tuple[str, float]] = {
    "photo": ("a photo of", 0.62),
    "pencil": ("a pencil drawing of", 0.08),
    "pixel": ("a pixel art of", 0.07),
    "watercolor": ("a watercolor painting of", 0.08),
    "oil": ("an oil painting of", 0.07),
    "monochrome": ("a black and white photo of", 0.08),
}

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
