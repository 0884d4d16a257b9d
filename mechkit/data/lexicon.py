"""The words that `properties` fills its templates with, written for this course.

Each list has a part for training and a part that only out-of-distribution sentences use; no word is in both.
"""


def _forms(text: str) -> tuple[tuple[str, str], ...]:
    """Lines of `word` (its second form adds an s) or `word/second form`, as pairs."""
    pairs = (word.partition("/")[::2] for word in text.split())
    return tuple((word, other or f"{word}s") for word, other in pairs)


# Nouns: singular, plural.
NOUNS = _forms(
    """dog cat horse cow bird goat duck bear lion tiger monkey snake frog spider whale eagle rabbit
    boy girl king queen doctor nurse teacher student lawyer farmer soldier driver singer writer actor artist
    painter dancer player baker judge guest friend neighbor brother sister uncle cousin son daughter pilot sailor
    worker engineer scientist president senator minister officer manager customer visitor tourist robot
    car truck train plane boat ship bus/buses book letter picture poem song table chair lamp clock bottle cup plate
    knife/knives box/boxes bag key door window wall house tower bridge garden tree flower apple shirt hat shoe coin
    computer phone camera"""
)
NEW_NOUNS = _forms(
    """wolf/wolves pig mouse/mice goose/geese child/children man/men woman/women hunter banker priest poet clerk
    chef captain prince princess/princesses thief/thieves witness/witnesses expert author
    ticket magazine guitar piano pencil basket blanket engine rocket statue"""
)
DISTRACTORS = _forms("lake hill river fence rock road barn store market park field farm school station hotel")
NEW_DISTRACTORS = _forms("mountain village castle museum island forest factory/factories temple beach/beaches office")

# Verbs: third person present, past.
VERBS = tuple(
    (f"{verb}s", f"{verb}d" if verb.endswith("e") else f"{verb}ed")
    for verb in """walk talk jump laugh shout whisper listen look smile dance cook paint play work travel wait rest
    help call visit clean open close start move turn return arrive argue bake believe blink boil
    breathe care change cheer climb collect complain count cough cover dream enter escape explain
    explore fail float follow gamble giggle greet guess hesitate hike improve insist joke joust
    knock land last lean learn like live lock melt mumble murmur obey object observe offer pack
    pause perform phone point pose practise pray pretend protest race rain relax remember repeat
    report respond retire roar row sail scream serve shiver sigh snore sneeze stare stumble suffer
    swallow wander whistle wonder yawn yell""".split()
)
NEW_VERBS = _forms(
    """swims/swam sings/sang runs/ran eats/ate drinks/drank drives/drove writes/wrote speaks/spoke sleeps/slept
    falls/fell sits/sat stands/stood thinks/thought teaches/taught leaves/left comes/came goes/went wins/won
    loses/lost forgets/forgot grows/grew sinks/sank rises/rose shakes/shook weeps/wept kneels/knelt fights/fought
    flies/flew hides/hid draws/drew"""
)
PEOPLE = "teacher farmer doctor singer nurse soldier lawyer artist".split()
NEW_PEOPLE = "pilot baker judge sailor".split()

GOOD = """good great wonderful excellent fantastic amazing brilliant superb lovely beautiful delightful perfect
    marvelous charming pleasant enjoyable impressive outstanding remarkable splendid terrific magnificent fabulous
    stunning gorgeous exciting fascinating inspiring touching elegant clever funny hilarious thoughtful refreshing
    satisfying memorable original powerful graceful moving flawless exceptional extraordinary incredible awesome
    admirable entertaining engaging uplifting""".split()
BAD = """bad terrible awful horrible dreadful disgusting boring dull poor weak disappointing annoying ugly
    unpleasant pathetic miserable stupid ridiculous worthless useless lousy mediocre tedious painful depressing
    offensive shallow pointless confusing messy clumsy silly predictable forgettable irritating unbearable shocking
    nasty gross foul lame bland lifeless hopeless inferior tasteless dismal atrocious appalling frustrating""".split()
NEW_GOOD = "nice fine noble superior joyful heartwarming captivating masterful sublime divine".split()
NEW_BAD = "sad cheap vile lazy ghastly hideous wretched cruel rotten sloppy".split()
THINGS = "film meal book song play concert".split()
NEW_THINGS = "speech hotel painting".split()

# Words that are nouns and verbs.
BOTH = """run walk talk dance swim drink cook sleep dream smile laugh jump climb drive ride fight kick throw push pull
    hug kiss call shout whisper answer question reply promise request demand offer order plan design study test search
    visit travel return start finish rest wait pause stop turn move change increase rise fall drop gain win
    bet gamble guess hope wish love hate fear doubt worry wonder trust respect support help attack defeat escape rescue
    march parade race sprint skate sail row fish hunt camp hike tour trade sneeze cough yawn sigh cry scream
    whistle hum murmur joke play sketch paint draw photograph film record report review debate protest vote lie
    sacrifice struggle""".split()
NEW_BOTH = """work use need cut hit touch bite taste smell look stare glance nap shower swing slip crash
    delay comment reform repair surprise blame praise grin chat stroll snack toast""".split()

LANGUAGES = {
    "English": """house water night bread woman child school street window summer winter garden kitchen morning
        friend church mountain river forest bird horse apple cheese chair letter heart dream world evening snow""",
    "French": """maison eau nuit pain femme enfant école rue fenêtre été hiver jardin cuisine matin ami église
        montagne fleuve forêt oiseau cheval pomme fromage chaise lettre coeur rêve monde soir neige""",
    "Spanish": """casa agua noche pan mujer niño escuela calle ventana verano invierno jardín cocina mañana amigo
        iglesia montaña río bosque pájaro caballo manzana queso silla carta corazón sueño mundo tarde nieve""",
    "German": """Haus Wasser Nacht Brot Frau Kind Schule Straße Fenster Sommer Winter Garten Küche Morgen Freund
        Kirche Berg Fluss Wald Vogel Pferd Apfel Käse Stuhl Brief Herz Traum Welt Abend Schnee""",
}
NEW_LANGUAGES = {
    "English": "sun moon earth light stone wood fire brother sister city town bridge dog milk sugar",
    "French": "soleil lune terre lumière pierre bois feu frère soeur ville village pont chien lait sucre",
    "Spanish": "sol luna tierra luz piedra madera fuego hermano hermana ciudad pueblo puente perro leche azúcar",
    "German": "Sonne Mond Erde Licht Stein Holz Feuer Bruder Schwester Stadt Dorf Brücke Hund Milch Zucker",
}

CITIES = {
    "France": "Paris Lyon Marseille Toulouse Bordeaux Strasbourg",
    "Germany": "Berlin Munich Hamburg Frankfurt Cologne Dresden",
    "Italy": "Rome Milan Venice Naples Turin Florence",
    "Spain": "Madrid Barcelona Seville Valencia Bilbao",
    "England": "London Manchester Liverpool Birmingham Leeds",
    "Japan": "Tokyo Osaka Kyoto Hiroshima Nagoya",
    "China": "Beijing Shanghai Guangzhou Shenzhen Wuhan",
    "India": "Mumbai Delhi Kolkata Chennai Bangalore",
    "Russia": "Moscow Vladivostok Novosibirsk Kazan",
    "Canada": "Toronto Montreal Vancouver Ottawa Calgary",
    "Australia": "Sydney Melbourne Brisbane Perth Adelaide",
    "Brazil": "Brasilia Salvador Recife Fortaleza",
    "Mexico": "Guadalajara Monterrey Cancun Tijuana",
    "Turkey": "Istanbul Ankara Izmir",
    "Egypt": "Cairo Alexandria Luxor",
    "Poland": "Warsaw Krakow Gdansk",
    "Greece": "Athens Thessaloniki",
    "Sweden": "Stockholm Gothenburg",
    "Norway": "Oslo Bergen",
    "Portugal": "Lisbon Porto",
    "Austria": "Vienna Salzburg",
    "Switzerland": "Zurich Geneva",
    "Netherlands": "Amsterdam Rotterdam",
    "Belgium": "Brussels Antwerp",
    "Pakistan": "Karachi Lahore",
    "Nigeria": "Lagos Abuja",
    "Kenya": "Nairobi Mombasa",
    "Argentina": "Rosario Mendoza",
    "Vietnam": "Hanoi Saigon",
    "Ukraine": "Kyiv Odessa",
}
NEW_CITIES = {
    "France": "Nice Nantes Lille",
    "Germany": "Stuttgart Leipzig Bremen",
    "Italy": "Bologna Verona Palermo",
    "Spain": "Granada Zaragoza",
    "England": "Oxford Bristol",
    "Japan": "Yokohama Sapporo",
    "China": "Nanjing Chengdu",
    "India": "Hyderabad Jaipur",
    "Russia": "Sochi Volgograd",
    "Canada": "Winnipeg Edmonton",
    "Australia": "Canberra Darwin",
    "Brazil": "Manaus Curitiba",
    "Thailand": "Bangkok Phuket",
    "Denmark": "Copenhagen Aarhus",
    "Finland": "Helsinki Tampere",
    "Morocco": "Casablanca Marrakesh",
    "Peru": "Lima Cusco",
    "Chile": "Santiago Valparaiso",
    "Cuba": "Havana Trinidad",
    "Hungary": "Budapest Debrecen",
    "Ireland": "Dublin Cork",
    "Israel": "Haifa Jerusalem",
}
